"""Weight files without a card: what is unwrapped, what is refused, and in which words."""

import io
import random
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from robustbench_c import zoo
from robustbench_c.errors import ModelError, UsageError

SHAPE = (1, 8, 8)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return dict(zoo.build("cnn-small", SHAPE, 3).state_dict())


def load(path: Path, **options: object) -> zoo.LoadedModel:
    settings = {"arch": "cnn-small", "input_shape": SHAPE, "n_classes": 3, **options}
    return zoo.load(str(path), **settings)  # type: ignore[arg-type]


def refusal(path: Path | str, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        load(Path(path), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_hash_for_every_format(tmp_path: Path, state: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": dict(reversed(state.items())), "epoch": 3}, tmp_path / "d.ckpt")
    torch.save({f"module.{key}": t.double() for key, t in state.items()}, tmp_path / "e.pt")
    loaded = [load(path) for path in sorted(tmp_path.iterdir())]
    assert len({model.sha256 for model in loaded}) == 1
    x = torch.rand(3, *SHAPE)
    assert all(torch.equal(model.module(x), loaded[0].module(x)) for model in loaded)
    assert [model.name for model in loaded] == ["a", "b", "c", "d", "e"]
    assert loaded[3].notices == ("state dict found under 'state_dict'",)
    assert loaded[4].notices == (
        "stripped prefix 'module.' from 8 keys",
        "converted 8 tensors from float64 to float32",
    )


def test_the_hash_tells_models_apart(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pt"
    torch.save(state, path)
    hashes = {load(path).sha256, load(path, mean=[0.5], std=[0.5]).sha256}
    hashes.add(load(path, mean=[0.5], std=[0.25]).sha256)
    state["7.bias"][0] = torch.nextafter(state["7.bias"][0], torch.tensor(9.0))
    torch.save(state, path)
    hashes.add(load(path).sha256)
    assert len(hashes) == 4
    tensors = zoo.build("mlp", (4,), 2, widths=(3,)).state_dict()
    torch.save(tensors, path)
    for activation in ("relu", "tanh"):  # the same weights, another function
        arguments = {"widths": (3,), "activation": activation}
        model = load(path, arch="mlp", arch_args=arguments, input_shape=(4,), n_classes=2)
        hashes.add(model.sha256)
    assert len(hashes) == 6


def test_loading_draws_no_random_numbers(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pt")
    before = torch.get_rng_state()
    load(tmp_path / "a.pt")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model", "net", "weights"])
def test_nested_and_wrapped(tmp_path: Path, state: dict[str, Tensor], nest: str) -> None:
    wrapped = {f"module._orig_mod.model.{key}": tensor for key, tensor in state.items()}
    torch.save({nest: wrapped, "ema": wrapped, "optimizer": {}}, tmp_path / "a.pt")
    model = load(tmp_path / "a.pt")
    assert model.notices == (
        f"state dict found under '{nest}' (beside it: ema; not used)",
        "stripped prefix 'module.' from 8 keys",
        "stripped prefix '_orig_mod.' from 8 keys",
        "stripped prefix 'model.' from 8 keys",
    )


def test_a_state_dict_of_normalized_brings_its_mean_and_std(tmp_path: Path) -> None:
    bare = zoo.build("cnn-small", SHAPE, 3)
    module = zoo.Normalized(bare, [0.25], [0.5], SHAPE).eval()
    torch.save(module.state_dict(), tmp_path / "a.pt")
    model = load(tmp_path / "a.pt")
    x = torch.rand(3, *SHAPE)
    assert torch.equal(model.module(x), module(x))
    assert "took mean and std from the state dict" in model.notices
    assert "do not give others" in refusal(tmp_path / "a.pt", mean=[0.0], std=[1.0])


def test_normalisation_asked_for_is_part_of_the_model(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    torch.save(state, tmp_path / "a.pt")
    x = torch.rand(3, *SHAPE)
    bare, normalised = load(tmp_path / "a.pt"), load(tmp_path / "a.pt", mean=[0.2], std=[0.4])
    assert torch.equal(normalised.module(x), bare.module((x - 0.2) / 0.4))


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ([0.0, 0.0], [1.0, 1.0], "mean has 2 values"),
        ([0.0], None, "go together"),
        ([0.0], [0.0], "std has the value 0"),
        ([0.0], [-1.0], "above 0"),
        ([float("nan")], [1.0], "mean has a value that is not finite"),
    ],
)
def test_bad_normalisation(
    tmp_path: Path, state: dict[str, Tensor], mean: object, std: object, words: str
) -> None:
    torch.save(state, tmp_path / "a.pt")
    assert words in refusal(tmp_path / "a.pt", mean=mean, std=std)


def test_misfits_name_the_tensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pt"
    torch.save({key: t for key, t in state.items() if key != "2.bias"}, path)
    assert refusal(path).endswith("does not fit cnn-small: missing: 2.bias 32")
    torch.save({**state, "fc.weight\n": torch.zeros(2, 3)}, path)
    assert refusal(path).endswith("does not fit cnn-small: unexpected: fc.weight 2x3")
    torch.save({**state, "7.weight": torch.zeros(4, 100)}, path)
    expected = "does not fit cnn-small: of the wrong shape: 7.weight is 4x100, expected 3x100"
    assert refusal(path).endswith(expected)
    torch.save({f"layer{key}": tensor for key, tensor in state.items()}, path)
    assert "missing: 0.weight 16x1x4x4, 0.bias 16, 2.weight 32x16x4x4 and 5 more" in refusal(path)
    torch.save({**state, "x": torch.zeros(1).expand(10**6, 10**6, 10**5)}, path)
    assert "unexpected: x 1000000x1000000x100000" in refusal(path)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.tensor([0.0, float("nan"), 1.0]), "1 of 3 values of 7.bias are NaN or Inf"),
        (torch.tensor([0.0, float("inf"), 1.0]), "7.bias"),
        (torch.tensor([0.0, 1e300, 1.0]).double() * 1e300, "7.bias"),
        (torch.tensor([0.0, 1e60, 1.0], dtype=torch.float64), "7.bias are NaN or Inf"),
        (torch.tensor([1, 2, 3]), "7.bias has dtype int64, expected float32"),
        (torch.zeros(3, dtype=torch.complex64), "7.bias has dtype complex64"),
        (torch.zeros(3).to_sparse(), "7.bias is sparse or quantised"),
    ],
)
def test_bad_values(tmp_path: Path, state: dict[str, Tensor], tensor: Tensor, words: str) -> None:
    torch.save({**state, "7.bias": tensor}, tmp_path / "a.pt")
    assert words in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_converted_and_said_so(
    tmp_path: Path, state: dict[str, Tensor], dtype: torch.dtype
) -> None:
    torch.save({key: tensor.to(dtype) for key, tensor in state.items()}, tmp_path / "a.pt")
    model = load(tmp_path / "a.pt")
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
    name = str(dtype).removeprefix("torch.")
    assert model.notices == (f"converted 8 tensors from {name} to float32",)


def test_a_missing_architecture_is_suggested(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pt")
    asked = refusal(tmp_path / "a.pt", arch=None)
    assert "--arch (mlp, cnn-small, cnn7, resnet, preact-resnet18)" in asked
    assert asked.endswith("; its shapes fit cnn-small")
    torch.save(zoo.build("mlp", (30,), 2, widths=(9, 8)).state_dict(), tmp_path / "a.pt")
    asked = refusal(tmp_path / "a.pt", arch=None, input_shape=None, n_classes=None)
    assert asked.endswith("; its shapes fit mlp(widths=(9, 8), activation='relu')")
    torch.save({"w": torch.zeros(3)}, tmp_path / "a.pt")
    assert "its shapes fit" not in refusal(tmp_path / "a.pt", arch=None)
    assert "input shape" in refusal(tmp_path / "a.pt", input_shape=None)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([1, 2], "an object of type list"),
        ({"epoch": 3, "lr": 0.1}, "its keys are: epoch, lr"),
        ({}, "its keys are: none"),
        ({"state_dict": [{"0.weight": torch.zeros(1)}]}, "its keys are: state_dict"),
    ],
)
def test_a_file_without_a_state_dict(tmp_path: Path, held: object, words: str) -> None:
    torch.save(held, tmp_path / "a.pt")
    assert words in refusal(tmp_path / "a.pt")


def test_a_dict_that_holds_itself_ends(tmp_path: Path) -> None:
    held: dict[str, object] = {}
    held["model"] = held
    torch.save(held, tmp_path / "a.pt")
    assert "holds no state dict" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"hello world", "corrupt"),
        (b"\0" * 4096, "holds zeros"),
    ],
)
def test_not_a_model_file(tmp_path: Path, suffix: str, data: bytes, words: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    assert words in refusal(path)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "absent.pt")
    assert "no model named 'absent' in the zoo" in refusal("absent")
    assert "no model named" in refusal("a" * 5000)
    assert "no model named" in refusal("nul\0byte")
    (tmp_path / "model.h5").write_bytes(b"x")
    assert "'.h5' is no model file" in refusal(tmp_path / "model.h5")
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert "not an ONNX file" in refusal(tmp_path / "model.onnx")


def test_no_such_device(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pt")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(UsageError, match=device):
            load(tmp_path / "a.pt", device=device)


def _bytes(state: dict[str, Tensor], kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save(state)
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=kind == "pt")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["pt", "pth", "safetensors"])
def test_damaged_files_never_raise_anything_else(
    tmp_path: Path, state: dict[str, Tensor], kind: str
) -> None:
    whole = _bytes(state, kind)
    path = tmp_path / f"a.{kind}"
    for cut in (1, 7, 9, 100, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refusal(path)
    generator = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):  # where the structure is: the first and the last bytes
            at = generator.randrange(700) - (350 if generator.random() < 0.5 else 0)
            damaged[at] = generator.randrange(256)
        path.write_bytes(damaged)
        with suppress(ModelError):  # some damage does no harm
            load(path)


def test_truncation_is_called_so(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for kind in ("pt", "pth"):
        whole = _bytes(state, kind)
        path = tmp_path / f"a.{kind}"
        path.write_bytes(whole[: len(whole) // 2])
        assert "is truncated" in refusal(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data/0", bytes(10**6))
    assert "compressed archive" in refusal(path)


class _Custom(nn.Module):
    pass


def test_pickles_that_need_code_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.pt"
    for held in (nn.Sequential(nn.Linear(2, 2)), _Custom(), {"best": np.float64(1), **state}):
        torch.save(held, path)
        assert "give --trust-checkpoint" in refusal(path)

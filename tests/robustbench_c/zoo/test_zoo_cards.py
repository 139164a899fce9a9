"""Cards: saving and reading, and cards made by strangers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustbench_c import zoo
from robustbench_c.errors import ModelError, RunError
from robustbench_c.zoo import cards

FULL = {
    "name": "tiny",
    "architecture": "mlp",
    "arguments": {"widths": (5,)},
    "input_shape": (3,),
    "classes": ("no", "yes"),
    "mean": (0.0, 1.0, 2.0),
    "std": (1.0, 0.1, 3.0),
    "data": "breast-cancer",
    "dataset_sha256": "a" * 64,
    "recipe": "pgd",
    "seed": 7,
    "epochs": 2,
    "threat": {"norm": "linf", "eps": 0.1},
    "licence": "MIT",
    "clean_accuracy": {"accuracy": 0.9, "samples": 10, "data": "d", "command": "robust-eval x"},
    "robust": (
        {
            "accuracy": 0.5,
            "samples": 10,
            "data": "d",
            "command": "robust-eval x --attack pgd",
            "threat": {"norm": "linf", "eps": 0.1},
            "protocol": "pgd-40x5",
        },
    ),
    "explanations": (
        {
            "explanation": "gradient",
            "criterion": "cosine similarity below 0.9",
            "threat": {"norm": "linf", "eps": 0.05},
            "certified": 0.7,
            "bent": 0.3,
            "protocol": "crown-interval",
            "samples": 10,
            "data": "d",
            "command": "robust-eval x --explain gradient",
        },
    ),
}


def draft(**changes: object) -> zoo.Draft:
    return zoo.Draft.model_validate({**FULL, **changes})


def network() -> torch.nn.Module:
    bare = zoo.build("mlp", (3,), 2, widths=(5,))
    return zoo.Normalized(bare, (0.0, 1.0, 2.0), (1.0, 0.1, 3.0), (3,))


def test_save_then_load_is_the_same_function(tmp_path: Path) -> None:
    module = network().eval()
    card = zoo.save(module, draft(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]
    loaded = zoo.load(str(tmp_path / "tiny.safetensors"))
    assert loaded.card == card
    assert loaded.name == "tiny"
    assert loaded.architecture == "mlp(widths=(5,), activation='relu')"
    assert loaded.notices == ()
    x = torch.rand(4, 3)
    assert torch.equal(loaded.module(x), module(x))
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    module = network()
    first = zoo.save(module, draft(), tmp_path / "a")
    second = zoo.save(module, draft(), tmp_path / "b")
    assert first == second
    assert (tmp_path / "a/tiny.json").read_bytes() == (tmp_path / "b/tiny.json").read_bytes()


def test_names_and_card_read_the_weights_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "WEIGHTS", tmp_path / "weights")
    assert zoo.names() == []
    with pytest.raises(ModelError, match="the zoo is empty"):
        zoo.card("tiny")
    zoo.save(network(), draft(), tmp_path / "weights")
    zoo.save(network(), draft(name="other"), tmp_path / "weights")
    assert zoo.names() == ["other", "tiny"]
    assert zoo.card("tiny").threat == zoo.TrainedFor(norm="linf", eps=0.1)
    assert zoo.load("tiny").card == zoo.card("tiny")
    for call in (zoo.card, zoo.load):
        with pytest.raises(ModelError, match="did you mean 'tiny'"):
            call("tinny")


def test_saving_checks_the_module_against_the_card(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit mlp"):
        zoo.save(network(), draft(arguments={"widths": (6,)}), tmp_path)
    with pytest.raises(ModelError, match="mean and std"):
        zoo.save(network(), draft(std=(1.0, 1.0, 1.0)), tmp_path)
    with pytest.raises(ModelError, match="not Normalized"):
        zoo.save(zoo.build("mlp", (3,), 2, widths=(5,)), draft(), tmp_path)
    broken = network()
    with torch.no_grad():
        next(broken.parameters())[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"1 of 15 values of 1\.weight are NaN"):
        zoo.save(broken, draft(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot make the folder"):
        zoo.save(network(), draft(), tmp_path / "file" / "folder")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        zoo.save(network(), draft(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "/etc/passwd"}, "weights: Extra inputs"),
        ({"name": "../../evil"}, "name: "),
        ({"schema_version": 2}, "schema_version"),
        ({"mean": [0.0]}, "mean has 1 values"),
        ({"mean": None}, "mean and std go together"),
        ({"std": [1.0, 0.0, 1.0]}, "every value must be above 0"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"input_shape": [0]}, "input_shape"),
        ({"classes": ["one"]}, "classes"),
        ({"clean_accuracy": {"accuracy": 91.0}}, "clean_accuracy.accuracy"),
        ({"explanations": [{**FULL["explanations"][0], "bent": 0.4}]}, "more than all samples"),
        ({"explanations": [{"certified": 1.5}]}, "explanations.0"),
        ({"architecture": "mpl"}, "no architecture named 'mpl'"),
        ({"arguments": {"widths": [10**9]}}, "65536"),
        ({"arguments": {"widths": [5], "depth": 3}}, "depth: Extra inputs"),
        ({"arguments": {"widths": [[5]]}}, "arguments.widths"),
    ],
)
def test_a_bad_card_is_one_line(tmp_path: Path, change: dict[str, object], words: str) -> None:
    zoo.save(network(), draft(), tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError) as caught:
        zoo.load(str(tmp_path / "tiny.safetensors"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not a model card"),
        (b"\xff\xfe", "not a model card"),
        (b"[" * 100_000, "not a model card"),
        (b'{"mean": NaN}', "not a model card"),
        (b" " * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_card_is_one_line(tmp_path: Path, text: bytes, words: str) -> None:
    zoo.save(network(), draft(), tmp_path)
    (tmp_path / "tiny.json").write_bytes(text)
    with pytest.raises(ModelError) as caught:
        zoo.load(str(tmp_path / "tiny.safetensors"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_changed_after_the_card_are_refused(tmp_path: Path) -> None:
    zoo.save(network(), draft(), tmp_path)
    path = tmp_path / "tiny.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not the file its card speaks of"):
        zoo.load(str(path))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"arch": "cnn-small"}, "architecture asked for is cnn-small, its card says mlp"),
        ({"arch_args": {"widths": [6]}}, "widths"),
        ({"input_shape": (4,)}, "input shape"),
        ({"n_classes": 3}, "number of classes asked for is 3, its card says 2"),
        ({"mean": [1.0, 1.0, 1.0]}, "mean"),
    ],
)
def test_a_request_against_the_card_is_refused(
    tmp_path: Path, asked: dict[str, object], words: str
) -> None:
    zoo.save(network(), draft(), tmp_path)
    path = str(tmp_path / "tiny.safetensors")
    with pytest.raises(ModelError) as caught:
        zoo.load(path, **asked)  # type: ignore[arg-type]
    assert words in str(caught.value)
    zoo.load(path, arch="mlp", arch_args={"widths": [5]}, input_shape=(3,), n_classes=2)


def test_names_and_cards_need_no_torch() -> None:
    code = (
        "import sys; from robustbench_c import zoo; zoo.names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_shipped_model_loads_and_is_what_its_card_says() -> None:
    for name in zoo.names():
        loaded = zoo.load(name)
        assert loaded.card is not None
        assert loaded.name == name == loaded.card.name
        x = torch.zeros(2, *loaded.card.input_shape)
        assert loaded.module(x).shape == (2, len(loaded.card.classes))

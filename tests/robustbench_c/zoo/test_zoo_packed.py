"""Sparse weights on disk: smaller, equal to the bit, and checked before they take memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from robustbench_c import zoo
from robustbench_c.errors import ModelError
from robustbench_c.zoo.packed import pack, packed_bytes

SHAPE = (1, 12, 12)


def sparse(share: float = 0.95) -> nn.Module:
    torch.manual_seed(0)
    network = zoo.build("cnn-small", SHAPE, 3)
    with torch.no_grad():
        for part in network:
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight *= torch.rand_like(part.weight) >= share  # leaves -0 behind
    return network


def draft(**changes: object) -> zoo.Draft:
    fields = {"name": "thin", "architecture": "cnn-small", "input_shape": SHAPE}
    fields |= {"classes": ("a", "b", "c"), "licence": "MIT"}
    return zoo.Draft.model_validate(fields | changes)


def dense_twin(path: Path, network: nn.Module) -> Path:
    """The same model in a file without CSR, with a card."""
    state = {key: value.detach() + 0.0 for key, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path)
    return path


def load(path: Path) -> zoo.LoadedModel:
    return zoo.load(str(path), arch="cnn-small", input_shape=SHAPE, n_classes=3)


def test_a_sparse_model_is_smaller_on_disk_and_the_same_model(tmp_path: Path) -> None:
    network = sparse()
    assert bool(torch.signbit(network[5].weight[network[5].weight == 0]).any())
    zoo.save(network, draft(), tmp_path)
    file = tmp_path / "thin.safetensors"
    twin = dense_twin(tmp_path / "twin.safetensors", network)
    assert file.stat().st_size < 0.2 * twin.stat().st_size
    assert 0 < file.stat().st_size - packed_bytes(load(file).module) < 2000  # the file's head
    assert packed_bytes(network) == packed_bytes(load(file).module)
    one, other = zoo.load(str(file)), load(twin)
    assert one.sha256 == other.sha256
    assert one.notices == ()
    for name, value in network.state_dict().items():
        assert torch.equal(one.module.state_dict()[name], value)
    first = file.read_bytes()
    zoo.save(one.module, draft(), tmp_path)
    assert file.read_bytes() == first


def test_packing_keeps_every_bit_and_only_where_it_pays() -> None:
    weight = torch.zeros(70, 300)
    weight[3, 299], weight[69, 0], weight[5, 5] = 1e-45, -0.0, -7.0
    small = pack({"a": weight, "b": torch.rand(4, 4), "c": torch.zeros(500)})
    assert set(small) == {"a.csr_values", "a.csr_columns", "a.csr_rows", "b", "c"}
    assert small["a.csr_columns"].dtype == torch.int16
    assert small["a.csr_rows"].dtype == torch.uint8
    assert len(small["a.csr_values"]) == 3
    half = torch.ones(64, 64)
    half[:, :32] = 0.0
    assert set(pack({"half": half})) == {"half"}
    assert pack({"w": torch.zeros(2, 257)})["w.csr_columns"].dtype == torch.int16
    assert pack({"w": torch.zeros(2, 256)})["w.csr_columns"].dtype == torch.uint8


@pytest.mark.parametrize("share", [0.8, 0.99, 1.0])
def test_round_trip_at_any_sparsity_with_normalisation(share: float, tmp_path: Path) -> None:
    network = zoo.Normalized(sparse(share), (0.3,), (0.4,), SHAPE)
    zoo.save(network, draft(mean=(0.3,), std=(0.4,)), tmp_path)
    x = torch.rand(2, *SHAPE)
    loaded = zoo.load(str(tmp_path / "thin.safetensors"))
    assert torch.equal(loaded.module(x), network(x))


def _cut(t: dict[str, Tensor], suffix: str, count: int) -> None:
    t[f"5.weight.csr_{suffix}"] = t[f"5.weight.csr_{suffix}"][:count]


def _set(t: dict[str, Tensor], suffix: str, place: int, value: int) -> None:
    t[f"5.weight.csr_{suffix}"][place] = value


def _kind(t: dict[str, Tensor], suffix: str, dtype: torch.dtype) -> None:
    t[f"5.weight.csr_{suffix}"] = t[f"5.weight.csr_{suffix}"].to(dtype)


BAD = {
    "values-cut": (lambda t: _cut(t, "values", 3), "do not make 100x288"),
    "columns-cut": (lambda t: _cut(t, "columns", 3), "do not make 100x288"),
    "rows-cut": (lambda t: _cut(t, "rows", 99), "do not make 100x288"),
    "no-rows": (lambda t: _cut(t, "rows", 0), "do not make 100x288"),
    "column-large": (lambda t: _set(t, "columns", -1, 288), "column is out of range"),
    "column-negative": (lambda t: _set(t, "columns", 0, -1), "column is out of range"),
    "columns-twice": (lambda t: _set(t, "columns", 1, int(t["5.weight.csr_columns"][0])), "ascend"),
    "start": (lambda t: _set(t, "rows", 0, 1), "one after the other"),
    "end": (lambda t: _set(t, "rows", -1, 30000), "one after the other"),
    "back": (lambda t: _set(t, "rows", 50, 0), "one after the other"),
    "negative": (lambda t: _set(t, "rows", 50, -32768), "one after the other"),
    "float-columns": (lambda t: _kind(t, "columns", torch.float32), "uint8, int16 or int32"),
    "int-values": (lambda t: _kind(t, "values", torch.int32), "torch.int32"),
    "matrix": (lambda t: t.update({"5.weight.csr_rows": t["5.weight.csr_rows"][None]}), "dimens"),
    "nan": (lambda t: t["5.weight.csr_values"].fill_(float("nan")), "NaN or Inf"),
    "half-gone": (lambda t: t.pop("5.weight.csr_rows"), "missing: 5.weight"),
    "both": (lambda t: t.update({"5.weight": torch.zeros(100, 288)}), "unexpected: 5.weight.csr"),
    "vector": (
        lambda t: t.update({k.replace("5.w", "9.w"): v.clone() for k, v in t.items()}),
        "unexpected: 9.weight.csr",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_sparse_weight_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    zoo.save(sparse(), draft(), tmp_path)
    tensors = safetensors.torch.load_file(tmp_path / "thin.safetensors")
    spoil, message = BAD[name]
    spoil(tensors)
    safetensors.torch.save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        load(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)


def test_a_tiny_file_cannot_ask_for_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before memory is asked for, although the architecture would allow it."""
    widths = (16, 60_000)
    tensors = {"1.weight": torch.zeros(16, 4), "1.bias": torch.zeros(16)}
    tensors |= {"3.bias": torch.zeros(60_000), "5.bias": torch.zeros(16_000)}
    for name, shape in (("3.weight", (60_000, 16)), ("5.weight", (16_000, 60_000))):
        tensors[name + ".csr_values"] = torch.zeros(0)
        tensors[name + ".csr_columns"] = torch.zeros(0, dtype=torch.uint8)
        tensors[name + ".csr_rows"] = torch.zeros(shape[0] + 1, dtype=torch.uint8)
    safetensors.torch.save_file(tensors, tmp_path / "bomb.safetensors")

    def no(*_: object, **__: object) -> Tensor:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(Tensor, "new_zeros", no)
    arguments = {"arch": "mlp", "arch_args": {"widths": widths}}
    with pytest.raises(ModelError, match="would unpack to 3,843,840,000"):
        zoo.load(
            str(tmp_path / "bomb.safetensors"), **arguments, input_shape=(4,), n_classes=16_000
        )


def test_masks_of_torchs_own_pruning_are_applied(tmp_path: Path) -> None:
    network = zoo.build("cnn-small", SHAPE, 3)
    prune.l1_unstructured(network[5], "weight", amount=0.9)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "pruned.pt")
    loaded = load(tmp_path / "pruned.pt")
    x = torch.rand(3, *SHAPE)
    assert torch.allclose(loaded.module(x), network(x))
    assert "applied the pruning masks of 1 tensors" in loaded.notices
    assert int((loaded.module[5].weight == 0).sum()) == round(0.9 * 28800)
    state = network.state_dict()
    state["5.weight_mask"] = state["5.weight_mask"] * 2
    torch.save(state, tmp_path / "scaled.pt")
    with pytest.raises(ModelError, match=r"5\.weight_mask is no mask"):
        load(tmp_path / "scaled.pt")


def test_networks_of_any_widths_keep_the_names_of_their_layers(tmp_path: Path) -> None:
    for name, arguments in (
        ("cnn-small", {"channels": (3, 1), "hidden": 7}),
        ("cnn7", {"widths": (2, 3, 4, 5, 1, 6)}),
    ):
        network = zoo.build(name, SHAPE, 3, **arguments)
        card = zoo.save(network, draft(architecture=name, arguments=arguments), tmp_path)
        loaded = zoo.load(str(tmp_path / "thin.safetensors"))
        assert list(network.state_dict()) == list(zoo.build(name, SHAPE, 3).state_dict())
        assert json.loads(card.model_dump_json())["arguments"] == {
            key: list(v) if isinstance(v, tuple) else v for key, v in arguments.items()
        }
        assert next(iter(arguments)) in loaded.architecture

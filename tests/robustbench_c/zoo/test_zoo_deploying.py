"""A pruned model of the zoo becomes a smaller one of the zoo, or nothing is written."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_c import zoo
from robustbench_c.errors import CheckFailedError
from robustbench_c.zoo import deploying

SHAPE = (1, 12, 12)
WIDTHS = {"mlp": (6, 7), "cnn-small": (3, 4, 20), "cnn7": (6, 8, 8, 8, 8, 30)}
ARGUMENTS = {"mlp": {"widths": (6, 7)}, "cnn-small": {"channels": (3, 4), "hidden": 20}}
ARGUMENTS |= {"cnn7": {"widths": WIDTHS["cnn7"]}}


def draft(architecture: str, **changes: object) -> zoo.Draft:
    fields = {"name": "small", "architecture": architecture, "input_shape": SHAPE}
    fields |= {"classes": ("a", "b", "c"), "licence": "MIT", "mean": (0.3,), "std": (0.4,)}
    fields |= {"arguments": ARGUMENTS.get(architecture, {})}
    return zoo.Draft.model_validate(fields | changes)


def pruned(architecture: str) -> nn.Module:
    torch.manual_seed(1)
    network = zoo.build(architecture, SHAPE, 3, **ARGUMENTS.get(architecture, {})).eval()
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.bias.normal_(0, 0.3)
                part.running_mean.normal_(0, 0.1)
                part.running_var.fill_(0.2)
        for layer, after in itertools.pairwise(layers):
            layer.weight.mul_(2)
            layer.weight[0] = 0.0
            if architecture in ARGUMENTS:
                after.weight.view(len(after.weight), len(layer.weight), -1)[:, 1] = 0.0
    return zoo.Normalized(network, (0.3,), (0.4,), SHAPE)


@pytest.mark.parametrize("architecture", ["mlp", "cnn-small", "cnn7"])
def test_deploy_gives_the_zoo_a_smaller_model(architecture: str, tmp_path: Path) -> None:
    model, x = pruned(architecture), torch.rand(40, *SHAPE)
    found = zoo.deploy(model, draft(architecture, clean_accuracy=None), x, tmp_path)
    before, after = found.widths
    assert before == WIDTHS[architecture]
    assert all(b - 2 <= a < b for a, b in zip(after, before, strict=True))
    assert after[-1] == before[-1] - 2  # no padding after it
    loaded = zoo.load(str(tmp_path / "small.safetensors"))
    wanted = model(x).detach()
    assert float((loaded.module(x) - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert float(wanted.std(0).min()) > 1e-3  # not because nothing is left
    assert found.differences[torch.float64] < 1e-12
    assert loaded.card == found.card


def test_a_residual_network_keeps_its_channels_and_loses_its_zeros(tmp_path: Path) -> None:
    model, x = pruned("resnet"), torch.rand(3, *SHAPE)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight *= torch.rand_like(part.weight) > 0.9
    found = zoo.deploy(model, draft("resnet"), x, tmp_path)
    assert found.widths[0] == found.widths[1]
    assert "no chain of layers" in (found.kept or "")
    assert found.differences == {}, "what was not compared has no difference to tell"
    assert torch.equal(zoo.load(str(tmp_path / "small.safetensors")).module(x), model(x))
    dense = sum(4 * value.numel() for value in model.state_dict().values())
    assert (tmp_path / "small.safetensors").stat().st_size < 0.5 * dense


def test_other_logits_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: nn.Module) -> nn.Module:
        other = pruned("mlp").model.to(next(network.parameters()).dtype)
        with torch.no_grad():
            other[1].weight[2, 3] += 1e-3  # within no rounding
        return other

    monkeypatch.setattr(deploying, "shrink", wrong)
    with pytest.raises(CheckFailedError, match=r"logits differ by .* nothing is written"):
        zoo.deploy(pruned("mlp"), draft("mlp"), torch.rand(5, *SHAPE), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_card_counts_the_zeros_of_a_sparse_model_alone(tmp_path: Path) -> None:
    model = pruned("mlp")
    path = tmp_path / "small.safetensors"
    card = zoo.save(model, draft("mlp"), tmp_path)
    assert card.sparsity is not None
    zeros = sum(int((w == 0).sum()) for w in model.parameters() if w.dim() == 2)
    weights = sum(w.numel() for w in model.parameters() if w.dim() == 2)
    assert card.sparsity.sparsity == zeros / weights
    assert card.sparsity.nonzero_weights == card.sparsity.nonzero_macs == weights - zeros
    assert card.sparsity.file_bytes == path.stat().st_size
    assert [layer.name for layer in card.sparsity.layers] == ["1", "3", "5"]
    assert zoo.load(str(path)).card == card
    dense = zoo.Normalized(zoo.build("mlp", SHAPE, 3, widths=(6, 7)), (0.3,), (0.4,), SHAPE)
    assert zoo.save(dense, draft("mlp", sparsity=card.sparsity), tmp_path).sparsity is None
    assert '"sparsity"' not in (tmp_path / "small.json").read_text()


def test_a_card_whose_counts_do_not_add_up_is_refused(tmp_path: Path) -> None:
    card = zoo.save(pruned("mlp"), draft("mlp"), tmp_path)
    told = card.model_dump(mode="json")
    for field, value in (("weights", 1), ("sparsity", 0.999), ("nonzero_weights", 0)):
        spoilt = told | {"sparsity": told["sparsity"] | {field: value}}
        with pytest.raises(ValueError, match=r"sum over the layers|share of zeros"):
            zoo.Card.model_validate(spoilt)

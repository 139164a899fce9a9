"""Adversarial training: the example is legal, and the model is left as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from attack_checks import NORMS, check_inside
from torch import Generator, Tensor, nn

from attacks.adversarial import PGDTraining
from attacks.objectives import standard
from attacks.threat import ThreatModel


class Net(nn.Module):
    """Batch norm, dropout and a frozen weight; remembers its inputs and can fail at a call."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)
        self.head.bias.requires_grad_(False)
        self.fails_at, self.inputs, self.modes = fails_at, [], []

    def forward(self, x: Tensor) -> Tensor:
        if len(self.inputs) == self.fails_at:
            raise KeyError("planted")
        self.inputs.append(x.detach().clone())
        self.modes.append([module.training for module in self.modules()])
        out: Tensor = self.head(self.body(x))
        return out


def net(fails_at: int = -1) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Net(fails_at).train()
    module.body[3].eval()  # a part that its owner keeps in eval mode
    return module


def call(module: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> Tensor:
    generator = changes.pop("generator", Generator().manual_seed(0))
    scale = changes.pop("scale", 1.0)
    settings = {
        "norm": "linf",
        "eps": 0.1,
        "steps": 3,
        "step_size": 0.05,
        "lower": torch.tensor(0.0),
        "upper": torch.tensor(1.0),
    }
    objective = PGDTraining(**(settings | changes))
    return objective(module, x, y, generator=generator, scale=scale)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(1)
    return torch.rand(20, 6, generator=generator), torch.randint(3, (20,), generator=generator)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("changes", [{"eps": 0.0}, {"eps": 0.0, "steps": 0}, {"scale": 0.0}])
def test_eps_0_is_the_standard_objective(batch, norm, changes):
    plain = standard(net(), *batch, generator=Generator(), scale=1.0)
    assert torch.equal(call(net(), *batch, norm=norm, **changes), plain)


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("norm", NORMS)
def test_the_example_is_inside_the_ball_and_trained_on(batch, norm, steps):
    module, (x, y) = net(), batch
    loss = call(module, x, y, norm=norm, steps=steps, step_size=0.3, scale=0.5)
    assert len(module.inputs) == steps + 1
    for seen in module.inputs:
        check_inside(ThreatModel.box(norm, 0.05), x, seen)
        assert not torch.equal(seen, x)
    again = standard(net(), module.inputs[-1], y, generator=Generator(), scale=1.0)
    assert torch.equal(loss, again)


def test_the_search_raises_the_loss(batch):
    x, y = batch
    module = net()
    call(module, x, y, steps=10)
    module.eval()
    losses = [nn.functional.cross_entropy(module(seen), y).item() for seen in module.inputs[:11]]
    assert losses[-1] > losses[0] > 0
    assert losses[-1] > nn.functional.cross_entropy(module(x), y).item()


def test_the_generator_alone_decides_the_noise(batch):
    module = net()
    first = call(module, *batch)
    torch.manual_seed(5)
    assert torch.equal(call(net(), *batch), first)
    assert not torch.equal(call(net(), *batch, generator=Generator().manual_seed(1)), first)


def test_crafting_moves_no_statistics_and_leaves_no_gradient(batch):
    x, y = batch
    module = net()
    loss = call(module, x, y, steps=4)
    once = net()
    once(module.inputs[-1])
    for key, value in once.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key
    assert all(weight.grad is None for weight in module.parameters())
    loss.backward()
    trained = {name for name, weight in module.named_parameters() if weight.grad is not None}
    assert trained == {name for name, _ in module.named_parameters()} - {"head.bias"}


@pytest.mark.parametrize("fails_at", [-1, 0, 2])
def test_modes_and_gradients_come_back(batch, fails_at):
    module = net(fails_at)
    modes = [part.training for part in module.modules()]
    needed = [weight.requires_grad for weight in module.parameters()]
    before = copy.deepcopy(module.state_dict())
    if fails_at < 0:
        call(module, *batch)
        assert module.modes == [[False] * len(modes)] * 3 + [modes]
    else:
        with pytest.raises(KeyError, match="planted"):
            call(module, *batch)
        assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert [weight.requires_grad for weight in module.parameters()] == needed

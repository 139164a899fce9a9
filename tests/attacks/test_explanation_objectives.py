"""Penalties on gradients: closed forms, scale of the estimator, blind spots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attack_checks import check_inside
from torch import Generator, Tensor, nn

from attacks.errors import AttackError
from attacks.explanation_objectives import align, hessian, ig_norm, path_attribution
from attacks.explanations import explain
from attacks.objectives import standard
from attacks.threat import ThreatModel

BOX = {"lower": torch.tensor(0.0), "upper": torch.tensor(1.0)}
CASES: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "align": (align, {"norm": "linf", "eps": 0.1, "l2": 0.5, **BOX}),
    "align-cosine": (align, {"norm": "l2", "eps": 0.5, "l2": 0.1, "cosine": 1.0, **BOX}),
    "hessian": (hessian, {"weight": 0.1}),
    "hessian by a step": (hessian, {"weight": 0.1, "step": 0.05}),
    "ig-norm": (
        ig_norm,
        {"norm": "linf", "eps": 0.1, "weight": 0.5, "steps": 3, "step_size": 0.05, **BOX},
    ),
}


class Quadratic(nn.Module):
    """Logits `(x A x / 2 + b x, -10)`: class 0 is predicted, and A is the Hessian."""

    def __init__(self) -> None:
        super().__init__()
        generator = Generator().manual_seed(0)
        half = torch.randn(5, 5, generator=generator, dtype=torch.float64) / 5
        self.a = nn.Parameter(half + half.T)
        self.b = nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        first = torch.einsum("ni,ij,nj->n", x, self.a, x) / 2 + x @ self.b
        return torch.stack([first, torch.full_like(first, -10.0)], 1)


def zero(model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float) -> Tensor:
    return torch.zeros((), dtype=x.dtype)


def sharp() -> nn.Module:
    return nn.Softplus(8.0)


def net(act: Callable[[], nn.Module] = sharp, norm: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        extra = [nn.BatchNorm1d(8), nn.Dropout(0.5)] if norm else []
        return nn.Sequential(nn.Linear(6, 8), *extra, act(), nn.Linear(8, 3))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(10, 6, generator=Generator().manual_seed(1)), torch.arange(10) % 3


def call(name: str, model: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> Tensor:
    function, settings = CASES[name]
    given = {"generator": Generator().manual_seed(0), "scale": 1.0}
    return function(model, x, y, **(given | settings | changes))


def test_the_hessian_penalty_is_the_squared_frobenius_norm_whatever_the_draws() -> None:
    model, x = Quadratic(), torch.rand(400, 5, dtype=torch.float64)
    size = float(model.a.detach().square().sum())
    for draws in (1, 8):
        for step in (None, 0.1):
            found = hessian(
                model, x, torch.zeros(400).long(), generator=Generator().manual_seed(0), scale=1.0,
                weight=1.0, draws=draws, step=step, base=zero,
            )  # fmt: skip
            assert float(found.detach()) == pytest.approx(size, rel=0.15)
    v = torch.randn(400, 5, generator=Generator().manual_seed(0), dtype=torch.float64)
    exact = (v @ model.a).square().sum(1).mean()
    settings = {"generator": Generator().manual_seed(0), "scale": 0.5, "weight": 2.0}
    found = hessian(model, x, torch.zeros(400).long(), base=zero, **settings)
    torch.testing.assert_close(found, exact)


def test_alignment_in_closed_form() -> None:
    model, x, y = Quadratic().float(), torch.rand(9, 5), torch.zeros(9).long()
    settings = {"generator": Generator().manual_seed(0), "scale": 0.5, "norm": "linf", "eps": 0.2}
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    found = align(model, x, y, l2=0.7, cosine=0.3, base=zero, **settings, **BOX)
    handle.remove()
    near = next(at for at in seen if at.shape == x.shape and not torch.equal(at, x))
    check_inside(ThreatModel.box("linf", 0.1), x, near)
    g, h = x @ model.a + model.b, near @ model.a + model.b
    turned = (1 - F.cosine_similarity(g, h)) / 2
    torch.testing.assert_close(found, (0.7 * (g - h).square().sum(1) + 0.3 * turned).mean())


def test_path_attributions_add_up_to_the_change_of_the_loss(batch) -> None:
    model, (x, y) = net().double(), (batch[0].double(), batch[1])
    end = x + 0.3 * torch.rand(x.shape, generator=Generator().manual_seed(2), dtype=x.dtype)
    found = path_attribution(model, x, end, y, 2000)
    loss = nn.CrossEntropyLoss(reduction="none")
    change = loss(model(end), y) - loss(model(x), y)
    torch.testing.assert_close(found.sum(1), change, rtol=1e-3, atol=1e-4)


def test_the_search_enlarges_the_norm_and_stays_inside(batch) -> None:
    model, (x, y) = net(), batch
    norms = [float(call("ig-norm", model, x, y, steps=s, base=zero).detach()) for s in (0, 3, 10)]
    assert norms[0] < norms[1] <= norms[2] * 1.001
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    call("ig-norm", model, x, y, points=1, search_points=1, scale=0.5)
    for at in seen:
        check_inside(ThreatModel.box("linf", 0.05), x, at)
    # a linear loss around x: |IG|_1 is eps times the L1 norm of its gradient
    steep = call("ig-norm", model, x, y, eps=1e-4, step_size=1e-4, base=zero, weight=1.0)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    inside = ((x > 1e-4) & (x < 1 - 1e-4)).float()
    assert float(steep.detach()) == pytest.approx(
        1e-4 * float((slope.abs() * inside).sum(1).mean()), rel=0.02
    )


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_finite_differences(batch, name) -> None:
    """The point that the search finds is held fixed, so there it takes no steps."""
    model, (x, y) = net().double(), (batch[0].double(), batch[1])
    changes = {"steps": 0} if name == "ig-norm" else {}
    weights = list(model.parameters())
    gradients = torch.autograd.grad(call(name, model, x, y, **changes), weights)
    moves = [
        torch.randn(w.shape, generator=Generator().manual_seed(4), dtype=w.dtype) for w in weights
    ]
    expected = sum(float((g * m).sum()) for g, m in zip(gradients, moves, strict=True))
    ends = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                weight.add_(move, alpha=step)
        ends.append(float(call(name, model, x, y, **changes).detach()))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_penalise_is_the_base(batch, name) -> None:
    model, (x, y) = net(), batch
    plain = standard(model, x, y, generator=Generator(), scale=1.0)
    off = {"l2": 0.0, "cosine": 0.0} if name.startswith("align") else {"weight": 0.0}
    torch.testing.assert_close(call(name, model, x, y, **off), plain)
    torch.testing.assert_close(call(name, model, x, y, scale=0.0), plain, rtol=1e-5, atol=1e-5)
    assert call(name, model, x, y) > plain
    torch.testing.assert_close(call(name, model, x, y, base=zero), call(name, model, x, y) - plain)


@pytest.mark.parametrize("name", CASES)
def test_the_generator_alone_decides_the_noise(batch, name) -> None:
    first = call(name, net(), *batch)
    torch.manual_seed(5)
    assert torch.equal(call(name, net(), *batch), first)
    assert not torch.equal(call(name, net(), *batch, generator=Generator().manual_seed(1)), first)


@pytest.mark.parametrize("name", CASES)
def test_modes_statistics_and_gradients(batch, name) -> None:
    model, (x, y) = net(norm=True).train(), batch
    statistics = model[1].running_mean.clone()
    modes = [part.training for part in model.modules()]
    loss = call(name, model, x, y, base=zero)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(model[1].running_mean, statistics)
    assert all(w.grad is None and w.requires_grad for w in model.parameters())
    loss.backward()
    assert bool(model[0].weight.grad.any())
    torch.testing.assert_close(call(name, model.eval(), x, y, base=zero), loss)


@pytest.mark.parametrize("name", CASES)
def test_training_lowers_the_penalty(batch, name) -> None:
    model, (x, y) = net(), batch
    before = float(call(name, model, x, y, base=zero).detach())
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimiser.zero_grad()
        call(name, model, x, y, base=zero).backward()
        optimiser.step()
    assert float(call(name, model, x, y, base=zero).detach()) < 0.8 * before


def test_relu_has_no_curvature_to_differentiate_but_kinks(batch) -> None:
    model = net(nn.ReLU)
    with pytest.raises(AttackError, match="second derivatives of this model are zero"):
        call("hessian", model, *batch)
    with pytest.raises(AttackError, match="second derivatives of this model are zero"):
        call("hessian", nn.Linear(6, 3), *batch)
    assert float(call("hessian by a step", model, *batch, base=zero).detach()) > 0
    leaf = batch[0].clone().requires_grad_()
    target = model(leaf).argmax(1)
    assert float(explain(model, leaf, target).abs().sum().detach()) > 0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("align", {"l2": -1.0}, "l2 is -1.0"),
        ("align", {"cosine": float("inf")}, "cosine is inf"),
        ("align", {"eps": -0.1}, "eps is -0.1"),
        ("hessian", {"weight": -1.0}, "weight is -1.0"),
        ("hessian", {"draws": 0}, "draws is 0"),
        ("hessian", {"step": 0.0}, "step is 0.0"),
        ("ig-norm", {"points": 0}, "points and search_points"),
        ("ig-norm", {"weight": float("nan")}, "weight is nan"),
    ],
)
def test_bad_settings_are_one_line(batch, name, change, message) -> None:
    with pytest.raises(AttackError, match=message) as error:
        call(name, net(), *batch, **change)
    assert "\n" not in str(error.value)

"""Bounds of linear functions over norm balls, against the optimum and against points inside."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.interval import Interval

FEATURES = 9


def threat(norm: str, eps: float, case: str) -> ThreatModel:
    made = ThreatModel.box(norm, eps)
    if case == "scaled":
        return ThreatModel(
            norm, eps, made.lower, made.upper, scale=torch.linspace(0.5, 2, FEATURES)
        )
    if case == "immutable":
        fixed = torch.arange(FEATURES) % 3 == 0
        return ThreatModel(norm, eps, made.lower, made.upper, immutable=fixed)
    return made


def optimum(inputs: InputSet, row: torch.Tensor, i: int) -> float:
    """The exact minimum of `row @ x` over the set of sample i."""
    low, high = (e[i].double().numpy() for e in (inputs.box.lower, inputs.box.upper))
    c = inputs.center[i].double().numpy()
    scale = 1.0 if inputs.scale is None else inputs.scale.double().numpy()
    a = row.double().numpy()
    if inputs.norm == "l1":
        n = len(a)
        size = [[*(1 / (scale + 0 * a)), *(1 / (scale + 0 * a))]]
        found = linprog(
            [*a, *-a],
            size,
            [inputs.eps],
            bounds=[(0, max(0, h)) for h in [*(high - c), *(c - low)]],
        )
        return found.fun + a @ c + 0 * n

    # a convex problem: a feasible point of the form that optimality asks for is the optimum
    def point(m: float) -> np.ndarray:
        return np.clip(-a * scale**2 / m, low - c, high - c)

    inside = (
        brentq(lambda t: ((point(10**t) / scale) ** 2).sum() - inputs.eps**2, -9, 9, xtol=1e-15)
        if ((point(1e-9) / scale) ** 2).sum() > inputs.eps**2
        else -9
    )
    return a @ point(10**inside) + a @ c


@pytest.mark.parametrize("case", ["plain", "scaled", "immutable"])
@pytest.mark.parametrize("eps", [1e-3, 0.1, 0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_bound_is_the_optimum(norm, eps, case):
    draw = torch.Generator().manual_seed(int(eps * 1000))
    x = torch.rand(5, FEATURES, generator=draw)
    x[0, :4] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    inputs = InputSet.around(x, threat(norm, eps, case))
    rows = torch.randn(5, FEATURES, generator=draw)
    rows[1, 2:] = 0
    rows[2] = 0
    rows[3] = 1
    found = inputs.dual_bound(rows, torch.arange(5))
    box = torch.where(rows > 0, inputs.box.lower, inputs.box.upper)
    found = torch.maximum(found, (rows * box).double().sum(1) - 1e-6)
    exact = torch.tensor([optimum(inputs, rows[i], i) for i in range(5)])
    assert torch.allclose(found, exact, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_no_point_inside_is_below_the_bound(norm):
    draw = torch.Generator().manual_seed(5)
    x = torch.rand(4, FEATURES, generator=draw)
    inputs = InputSet.around(x, threat(norm, 0.4, "scaled"))
    rows = torch.randn(4, FEATURES, generator=draw)
    found = inputs.dual_bound(rows, torch.arange(4))
    d = torch.randn(20000, 4, FEATURES, generator=draw, dtype=torch.float64)
    d[::2] = d[::2] * (torch.rand(d[::2].shape, generator=draw) < 0.2)
    d[1::4] = -rows.sign() * d[1::4].abs()
    length = d.norm(dim=2, keepdim=True, p=1 if norm == "l1" else 2)
    d = d / length.clamp(min=1e-9) * 0.4 * inputs.scale.double()
    points = (x.double() + d).clamp(0, 1)  # towards the center: still inside
    assert bool(((points * rows.double()).sum(2) >= found).all())
    assert bool(((points * rows.double()).sum(2).amin(0) <= found + 0.2).all())


def test_a_multiplier_that_is_off_still_bounds(monkeypatch):
    draw = torch.Generator().manual_seed(6)
    x = torch.rand(3, FEATURES, generator=draw)
    inputs = InputSet.around(x, ThreatModel.box("l2", 0.5))
    rows, owner = torch.randn(3, FEATURES, generator=draw), torch.arange(3)
    best = inputs.dual_bound(rows, owner)
    for factor in (0.5, 0.9, 1.1, 4.0):
        monkeypatch.setattr(
            "certify.ball._multiplier_l2", lambda a, r, eps, f=factor: a.norm(dim=1) / eps * f
        )
        assert bool((inputs.dual_bound(rows, owner) <= best + 1e-9).all())


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_bound_has_the_gradient_that_raises_it(norm):
    torch.manual_seed(0)
    center = torch.rand(4, 7)
    box = Interval((center - 0.3).clamp(0, 1), (center + 0.3).clamp(0, 1))
    inputs = InputSet(box, norm, center, 0.55)
    rows, owner = torch.randn(4, 7, dtype=torch.float64, requires_grad=True), torch.arange(4)
    bound = inputs.dual_bound(rows, owner)
    assert bound is not None
    (gradient,) = torch.autograd.grad(bound.sum(), rows)
    step = 1e-5
    for i in range(7):
        move = step * torch.eye(7, dtype=torch.float64)[i]
        up, down = (inputs.dual_bound(rows.detach() + s * move, owner) for s in (1, -1))
        assert torch.allclose(gradient[:, i], (up - down) / (2 * step), atol=1e-4)

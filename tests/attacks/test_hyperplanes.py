"""The nearest point of (hyperplane intersected with box), against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_checks import NORMS
from scipy.optimize import linprog, minimize

from attacks import hyperplanes
from attacks.hyperplanes import onto_hyperplane

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def problems(d: int, n: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Slopes with zeros, boxes with features that cannot move, rises of both signs."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(size=(n, d)) * (rng.uniform(size=(n, d)) > 0.2)
    low, high = -rng.uniform(size=(n, d)), rng.uniform(size=(n, d))
    held = rng.uniform(size=(n, d)) < 0.2
    low[held] = high[held] = 0.0
    reach = (np.maximum(slope, 0) * high - np.maximum(-slope, 0) * low).sum(1, keepdims=True)
    fall = (np.minimum(slope, 0) * high + np.maximum(slope, 0) * low).sum(1, keepdims=True)
    share = rng.uniform(0.0, 1.3, size=(n, 1))
    rise = np.where(rng.uniform(size=(n, 1)) < 0.5, share * reach, share * fall)
    return tuple(torch.tensor(part) for part in (slope, rise, low, high))


def best(norm: str, slope: np.ndarray, rise: float, low: np.ndarray, high: np.ndarray) -> float:
    """Least norm on the hyperplane inside the box, by scipy; infinite where they do not meet."""
    d = len(slope)
    bounds = list(zip(low, high, strict=True))
    extra = 1 if norm == "linf" else d
    pick = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    cost = np.r_[np.zeros(d), np.ones(extra)]
    sides = np.block([[np.eye(d), -pick], [-np.eye(d), -pick]])
    equal = np.r_[slope, np.zeros(extra)][None]
    found = linprog(
        cost, sides, np.zeros(2 * d), equal, [rise], bounds=[*bounds, *[(0, None)] * extra]
    )
    if found.status != 0:
        return np.inf
    if norm != "l2":
        return float(found.fun)
    flat = {"type": "eq", "fun": lambda z: slope @ z - rise, "jac": lambda z: slope}
    solved = minimize(
        lambda z: z @ z,
        found.x[:d],
        jac=lambda z: 2 * z,
        bounds=bounds,
        constraints=flat,
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 300},
    )
    return float(np.linalg.norm(solved.x))


def check(norm: str, d: int, seed: int) -> None:
    slope, rise, low, high = problems(d, 40, seed)
    found = onto_hyperplane(norm, slope, rise, low, high)
    assert (found >= low).all()
    assert (found <= high).all()
    met = 0
    for row in range(40):
        z, wanted = found[row].numpy(), float(rise[row])
        least = best(norm, slope[row].numpy(), wanted, low[row].numpy(), high[row].numpy())
        if np.isfinite(least):
            met += 1
            assert slope[row].numpy() @ z == pytest.approx(wanted, abs=1e-9)
            assert np.linalg.norm(z, ORDER[norm]) == pytest.approx(least, rel=1e-5, abs=1e-7)
        else:
            corner = torch.where(slope[row] * np.sign(wanted) > 0, high[row], low[row])
            corner = torch.where(slope[row] == 0, 0.0, corner).numpy()
            assert np.allclose(z, corner), "not the corner nearest to the hyperplane"
    assert 10 < met < 40


@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_the_shortest(norm, d):
    check(norm, d, seed=d)


@pytest.mark.parametrize("norm", NORMS)
def test_no_slope_no_move(norm):
    zero, one = torch.zeros(2, 3).double(), torch.ones(2, 3).double()
    rise = torch.tensor([[1.0], [0.0]]).double()
    assert torch.equal(onto_hyperplane(norm, zero, rise, -one, one), zero)
    assert torch.equal(onto_hyperplane(norm, one, 0 * rise, -one, one), zero)


def test_a_large_input_is_exact():
    """784 features: what the slope gains is the rise, to rounding."""
    slope, rise, low, high = problems(784, 8, 0)
    for norm in NORMS:
        found = onto_hyperplane(norm, slope, rise, low, high)
        gained = (slope * found).sum(1, keepdim=True)
        full = (slope * torch.where(slope * rise > 0, high, low)).sum(1, keepdim=True)
        wanted = torch.where(rise.abs() < full.abs(), rise, full)
        assert torch.allclose(gained, wanted, rtol=1e-12, atol=1e-10)


def test_a_planted_bug_is_seen(monkeypatch):
    """The projection onto the hyperplane alone, clipped to the box, is not the shortest."""

    def clipped(norm, steep, rise, cap):
        return torch.minimum(steep * rise / (steep**2).sum(1, keepdim=True).clamp_min(1e-300), cap)

    monkeypatch.setattr(hyperplanes, "_fill", clipped)
    with pytest.raises(AssertionError):
        check("l2", 7, seed=7)

"""Projections onto ball and box: feasible, nearest, idempotent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_checks import NORMS, Norm, reach
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import Bounds, NonlinearConstraint, linprog, minimize

from attacks.projections import PROJECTIONS

SIZES = [0.0, 1e-30, 1e-8, 0.1, 0.25, 0.25, 1.0, 3.0, 1e3, 1e6]


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Points (n, d), a box around 0 with dead and tied sides, and eps from 0 up."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 7)))
    sizes = st.one_of(st.sampled_from(SIZES), st.floats(0.001, 2))
    v = draw(arrays(np.float64, shape, elements=sizes))
    v = v * draw(arrays(np.float64, shape, elements=st.sampled_from([-1.0, 1.0])))
    low = -draw(arrays(np.float64, shape, elements=sizes))
    high = draw(arrays(np.float64, shape, elements=sizes))
    if draw(st.booleans()):
        low, high = np.full(shape, low.flat[0]), np.full(shape, high.flat[0])
    return v, low, high, draw(sizes)


def project(norm: Norm, v: np.ndarray, low: np.ndarray, high: np.ndarray, eps: float) -> np.ndarray:
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in (v, low, high)]
    return PROJECTIONS[norm](*tensors, eps).numpy()


def norm_of(norm: Norm, z: np.ndarray) -> np.ndarray:
    return np.linalg.norm(z, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(problem=problems())
def test_projection_is_the_nearest_point(norm, problem):
    v, low, high, eps = problem
    z = project(norm, v, low, high, eps)
    assert (z >= low).all()
    assert (z <= high).all()
    assert (norm_of(norm, z) <= eps * (1 + 1e-14)).all()
    # z is nearest iff no legal u has (v - z).(u - z) > 0; the largest (v - z).u is known exactly
    for row in range(len(v)):
        pull = v[row] - z[row]
        best = reach(norm, np.abs(pull), np.where(pull > 0, high[row], -low[row]), eps)
        slack = 1e-9 * np.abs(pull).max() * np.abs(z[row]).max() + 1e-14 * np.abs(v[row]).max() ** 2
        assert best - pull @ z[row] <= slack
    # small entries beside large ones: the norm's rounding is shared out among them
    again = project(norm, z, low, high, eps)
    np.testing.assert_allclose(again, z, rtol=1e-12, atol=1e-15 * min(eps, 1.0) + 1e-300)


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems())
def test_rows_are_projected_alone(norm, problem):
    v, low, high, eps = problem
    whole = project(norm, v, low, high, eps)
    for row in range(len(v)):
        one = slice(row, row + 1)
        assert (project(norm, v[one], low[one], high[one], eps) == whole[one]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_projection_agrees_with_a_general_solver(norm):
    rng = np.random.default_rng(0)
    for _ in range(12):
        d = int(rng.integers(1, 6))
        v, eps = rng.normal(size=d), float(rng.uniform(0.1, 1.2))
        low, high = -rng.uniform(0.05, 0.6, d), rng.uniform(0.05, 0.6, d)
        z = project(norm, v[None], low[None], high[None], eps)[0]
        if norm == "l2":
            ball = NonlinearConstraint(lambda u: u @ u, -np.inf, eps**2, jac=lambda u: 2 * u)
            start, limits, split = np.full(d, 0.01), Bounds(low, high), np.eye(d)
        else:  # u = p - q with p, q >= 0 makes the norm linear
            split = np.hstack([np.eye(d), -np.eye(d)])
            total = np.ones((1, 2 * d)) if norm == "l1" else np.hstack([np.eye(d)] * 2)
            ball = NonlinearConstraint(
                lambda u, total=total: total @ u, -np.inf, eps, jac=lambda u, total=total: total
            )
            start, limits = np.full(2 * d, 1e-3), Bounds(0.0, np.concatenate([high, -low]))
        found = minimize(
            lambda u, split=split, v=v: ((split @ u - v) ** 2).sum(),
            start,
            jac=lambda u, split=split, v=v: 2 * split.T @ (split @ u - v),
            method="SLSQP",
            bounds=limits,
            constraints=[ball],
            options={"ftol": 1e-13, "maxiter": 500},
        )
        np.testing.assert_allclose(z, split @ found.x, atol=2e-5)


def test_the_reference_itself_agrees_with_a_linear_program():
    rng = np.random.default_rng(1)
    for norm in ("linf", "l1"):
        for _ in range(20):
            slope, cap, eps = rng.uniform(size=6), rng.uniform(size=6), float(rng.uniform(0, 3))
            rows = np.ones((1, 6)) if norm == "l1" else np.eye(6)
            lp = linprog(-slope, rows, np.full(len(rows), eps), bounds=np.c_[0 * cap, cap])
            assert reach(norm, slope, cap, eps) == pytest.approx(-lp.fun, abs=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_of_a_million_eps_stays_within_eps(norm):
    rng = np.random.default_rng(2)
    v, box = 1e6 * rng.normal(size=(50, 40)), np.ones((50, 40))
    for eps in (1e-6, 1e-3, 1.0):
        z = project(norm, v, -box, box, eps)
        assert (norm_of(norm, z) <= eps * (1 + 1e-14)).all()

"""Bounds of intervals hold every point that was tried, on every operation and on random nets."""

from __future__ import annotations

import statistics

import pytest
import torch
from bound_checks import (
    check_batched,
    check_exact,
    check_monotone,
    check_not_numbers,
    check_points,
    interval_domain,
    linear_domain,
)
from bound_nets import ALONE, Case, alone, net, nets
from explanation_nets import CLASSES, NETS, SHAPE
from explanation_nets import net as net_of
from hypothesis import HealthCheck, assume, given, settings

from attacks.explanations import Explanation
from certify.explaining import trace_explanation
from certify.maps import MAPS
from certify.propagate import RULES
from certify.trace import trace_model

few = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
DROPPING = {
    "index",
    "slice",
    "index_select",
    "set",
    "masked_fill",
    "masked_fill by a tensor",
    "gather",
}
DROPPING |= {"wider type"}
"""Operations that forget entries, or by which NaN may go lost."""


@pytest.mark.parametrize(("name", "rank"), ALONE)
def test_each_operation(name: str, rank: int) -> None:
    case = alone(name, rank)
    found = check_points(interval_domain, case, restarts=2, steps=3)
    assert found.by_gradient >= found.points / 2
    assert found.share > 0, "no point came anywhere near the bounds"
    check_exact(interval_domain, case)
    check_monotone(interval_domain, case)
    check_batched(interval_domain, case)


@few
@given(nets())
def test_random_nets(case: Case) -> None:
    check_points(interval_domain, case, restarts=6)
    check_exact(interval_domain, case)
    check_batched(interval_domain, case)


@settings(few, max_examples=6)
@given(nets())
def test_random_nets_by_the_linear_domain(case: Case) -> None:
    check_points(linear_domain, case, restarts=4)
    check_exact(linear_domain, case)


@pytest.mark.slow
def test_hundreds_of_random_nets_by_the_linear_domain() -> None:
    @settings(few, max_examples=300)
    @given(nets())
    def on_random_nets(case: Case) -> None:
        with torch.no_grad():
            assume(bool((case.model(case.x).abs() < 1e12).all()))
        check_points(linear_domain, case, 10, 8)
        check_exact(linear_domain, case)
        check_batched(linear_domain, case)

    on_random_nets()


@pytest.mark.slow
def test_a_million_points(capsys: pytest.CaptureFixture[str]) -> None:
    shares: dict[str, list[float]] = {}
    points = by_gradient = cases = 0

    def take(name: str, case: Case, restarts: int, steps: int) -> None:
        nonlocal points, by_gradient, cases
        found = check_points(interval_domain, case, restarts, steps)
        shares.setdefault(name, []).append(found.share)
        points, by_gradient, cases = (
            points + found.points,
            by_gradient + found.by_gradient,
            cases + 1,
        )

    for name, rank in ALONE:
        for eps in (0.01, 0.1, 0.5):
            take(name, alone(name, rank, eps), 4, 8)

    @settings(few, max_examples=400)
    @given(nets())
    def on_random_nets(case: Case) -> None:
        with torch.no_grad():  # towers of exponentials overflow, and their bounds are NaN
            assume(bool((case.model(case.x).abs() < 1e12).all()))
        take("random nets", case, 40, 8)
        check_exact(interval_domain, case)
        check_monotone(interval_domain, case)

    on_random_nets()
    medians = {name: statistics.median(values) for name, values in shares.items()}
    with capsys.disabled():
        print(f"\n{points:,} points, {by_gradient:,} led by gradients, {cases} cases, 0 outside")
        print("median of attained / bound:")
        for name, median in sorted(medians.items(), key=lambda pair: pair[1]):
            print(f"  {name:26} {median:.3f}")
    assert points >= 10**6
    assert by_gradient >= points / 2
    assert all(median > 0 for median in medians.values())


@pytest.mark.parametrize("activation", ["ReLU", "Tanh", "GELU", "Softplus"])
def test_deep_nets_hold_float64_values(activation: str) -> None:
    for seed in range(2):
        case = net(seed, 1, ["Linear", activation] * 10, 0.0, samples=20)
        check_exact(interval_domain, case)


@pytest.mark.parametrize(("name", "rank"), ALONE)
def test_not_numbers_stay_so(name: str, rank: int) -> None:
    if name in DROPPING:
        pytest.skip("forgets entries")
    x = alone(name, rank).x
    case = net(1, rank, [name], 0.1)
    check_not_numbers(interval_domain, Case(name, case.model, x[: len(case.x)], 0.1))


@pytest.mark.slow
def test_every_operation_is_in_some_net() -> None:
    used = set()
    for name, rank in ALONE:
        case = alone(name, rank)
        used |= {node.op for node in trace_model(case.model, case.x).nodes}
    for name in NETS:
        x, seed = torch.rand(2, *SHAPE), torch.eye(CLASSES)[:2]
        used |= {n.op for n in trace_explanation(net_of(name), x, seed, Explanation()).nodes}
    assert {str(op) for op in (set(MAPS) | set(RULES)) - used} == set()

"""What every domain's bounds must hold; a domain is a function from a model and a box to bounds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bound_nets import Case
from torch import Tensor, nn

from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.interval import Interval, as_interval
from certify.propagate import propagate
from certify.specification import Specification
from certify.trace import trace_model

Bounds = Callable[[Interval], Interval]
Domain = Callable[[nn.Module, Tensor], Bounds]
"""From a model and a sample of its inputs to what bounds it on boxes."""


def interval_domain(model: nn.Module, x: Tensor) -> Bounds:
    program = bind_model(model, trace_model(model, x))

    def bounds(box: Interval) -> Interval:
        with torch.no_grad():
            return as_interval(propagate(program, {"x": box})[program.output])

    return bounds


def linear_domain(model: nn.Module, x: Tensor) -> Bounds:
    """CROWN: the output's entries and their negatives from below."""
    program = bind_model(model, trace_model(model, x))

    def bounds(box: Interval) -> Interval:
        with torch.no_grad():
            known = analyse(program, InputSet(box), tighten=True)
            outputs = as_interval(known.values[program.output]).lower
            unit = torch.eye(outputs[0].numel())
            rows = torch.cat([unit, -unit]).expand(len(outputs), -1, -1)
            asked = Specification(rows, rows.new_zeros(rows.shape[:2]), tuple(range(rows.shape[1])))
            found = output_bounds(known, asked)
            low, high = found[:, : len(unit)], -found[:, len(unit) :]
            return Interval(low.view(outputs.shape), high.view(outputs.shape))

    return bounds


def box_of(x: Tensor, eps: float) -> Interval:
    return Interval(x - eps, x + eps)


@dataclass
class Found:
    """How many points were tried, and how much of the bounds' width they reached."""

    points: int
    by_gradient: int
    share: float


def check_points(domain: Domain, case: Case, restarts: int = 4, steps: int = 4) -> Found:
    """No point of the box, random or led to either end by gradients, is out of the bounds."""
    model, box = case.model, box_of(case.x, case.eps)
    found = domain(model, case.x)(box)
    assert not found.lower.isnan().any(), f"{case.name}: NaN"
    assert not found.upper.isnan().any(), f"{case.name}: NaN"
    assert bool((found.lower <= found.upper).all()), f"{case.name}: ends swapped"
    n, outputs = len(case.x), found.lower[0].numel()
    ends = min(outputs, 6)
    led, chance = _led(model, box, ends, restarts, steps), _random(box, restarts * ends * steps)
    exact = copy.deepcopy(model).double()
    low, high = found.lower.flatten(1).double(), found.upper.flatten(1).double()
    reached = [torch.full_like(low, torch.inf), torch.full_like(low, -torch.inf)]
    for points in (led, chance):
        with torch.no_grad():
            rows = points.flatten(0, 1)
            values = [model(rows.clone()).double(), exact(rows.double())]
        for value in values:
            value = value.reshape(len(points), n, -1)
            worst = torch.maximum(low - value, value - high).amax().item()
            assert not worst > 0, f"{case.name}: a value is {worst:.3g} out of its bounds"
            reached = [
                torch.minimum(reached[0], value.amin(0)),
                torch.maximum(reached[1], value.amax(0)),
            ]
    share = ((reached[1] - reached[0]) / (high - low))[high > low]
    points = len(led) * n + len(chance) * n
    return Found(points, len(led) * n, share.median().item() if share.numel() else 1.0)


def _random(box: Interval, count: int) -> Tensor:
    """Points (count, n, *shape), every other one a corner."""
    u = torch.rand(count, *box.shape)
    u[::2] = u[::2].round()
    return (box.lower + u * (box.upper - box.lower)).clamp(box.lower, box.upper)


def _led(model: nn.Module, box: Interval, ends: int, restarts: int, steps: int) -> Tensor:
    """All points on the way of PGD to either end of each of the first outputs."""
    x = _random(box, restarts * ends * 2)
    sign = torch.tensor([1.0, -1.0]).repeat(restarts * ends)[:, None]
    which = torch.arange(ends).repeat_interleave(2).repeat(restarts)
    visited = []
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        value = model((x * 1).flatten(0, 1)).reshape(len(x), len(box.lower), -1)
        value = value.gather(2, which[:, None, None].expand(-1, value.shape[1], 1))[..., 0]
        (gradient,) = torch.autograd.grad((value * sign).sum(), x, allow_unused=True)
        if gradient is None:
            gradient = torch.zeros_like(x)
        step = (box.upper - box.lower) * 0.4 * gradient.nan_to_num().sign()
        x = (x.detach() + step).clamp(box.lower, box.upper)
        visited.append(x)
    return torch.cat(visited)


def check_exact(domain: Domain, case: Case) -> None:
    """At eps 0 the bounds hold the value, in real numbers (float64) as in float32."""
    found = domain(case.model, case.x)(box_of(case.x, 0.0))
    with torch.no_grad():
        exact = copy.deepcopy(case.model).double()(case.x.double())
        plain = case.model(case.x.clone()).double()
    for value in (exact, plain):
        assert bool((value >= found.lower.double()).all()), f"{case.name}: below"
        assert bool((value <= found.upper.double()).all()), f"{case.name}: above"


def check_monotone(domain: Domain, case: Case) -> None:
    """A larger box never has tighter bounds, but for rounding."""
    bounds = domain(case.model, case.x)
    inner, outer = bounds(box_of(case.x, case.eps / 2)), bounds(box_of(case.x, case.eps))
    slack = 1e-5 * (1 + inner.magnitude)
    assert bool((outer.lower <= inner.lower + slack).all()), case.name
    assert bool((outer.upper >= inner.upper - slack).all()), case.name


def check_batched(domain: Domain, case: Case) -> None:
    """Samples are bounded alike together and alone."""
    bounds, box = domain(case.model, case.x), box_of(case.x, case.eps)
    together = bounds(box)
    for i in range(len(case.x)):
        single = bounds(Interval(box.lower[i : i + 1], box.upper[i : i + 1]))
        for a, b in ((together.lower, single.lower), (together.upper, single.upper)):
            torch.testing.assert_close(a[i], b[0], rtol=1e-4, atol=1e-5)


def check_not_numbers(domain: Domain, case: Case) -> None:
    """NaN in a sample is NaN at both ends of its bounds, and none of the others'; Inf is not
    finite where the value is none.
    """
    box = box_of(case.x, case.eps)
    bounds, clean = domain(case.model, case.x), None
    clean = bounds(box)
    lower, upper = box.lower.clone(), box.upper.clone()
    lower[0], upper[0] = torch.nan, torch.nan
    found = bounds(Interval(lower, upper))
    assert bool(found.lower[0].isnan().all()), f"{case.name}: NaN let through"
    assert bool(found.upper[0].isnan().all()), f"{case.name}: NaN let through"
    torch.testing.assert_close(found.lower[1:], clean.lower[1:], rtol=1e-4, atol=1e-5)
    for one in (lower, upper):  # at one end only, neither end is better known than without it
        one[0] = torch.inf if one is upper else -torch.inf
    wide = bounds(Interval(lower, upper))
    assert not bool((wide.lower[0] > clean.lower[0]).any()), f"{case.name}: Inf hides values"
    assert not bool((wide.upper[0] < clean.upper[0]).any()), f"{case.name}: Inf hides values"

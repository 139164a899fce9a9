"""Lines hold at every point of their interval, and are as tight as they can be."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import certify.curve_table  # noqa: F401  # registers the curves
import robustbench_c  # noqa: F401  # sets the path of the siblings
from certify.graph import Ref
from certify.interval import Interval
from certify.lines import LINES, hinge_lines

aten = torch.ops.aten
POSITIVE = (aten.log.default, aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default)
CALLS = [
    (aten.relu.default, (), {}),
    (aten.leaky_relu.default, (0.2,), {}),
    (aten.leaky_relu.default, (1.7,), {}),
    (aten.leaky_relu.default, (-0.5,), {}),
    (aten.abs.default, (), {}),
    (aten.sigmoid.default, (), {}),
    (aten.tanh.default, (), {}),
    (aten.atan.default, (), {}),
    (aten.erf.default, (), {}),
    (aten.gelu.default, (), {}),
    (aten.gelu.default, (), {"approximate": "tanh"}),
    (aten.silu.default, (), {}),
    (aten.mish.default, (), {}),
    (aten.softplus.default, (1.0, 20.0), {}),
    (aten.softplus.default, (3.0, 20.0), {}),
    (aten.log_sigmoid.default, (), {}),
    (aten.elu.default, (1.0,), {}),
    (aten.elu.default, (1.6732632423543772, 1.0507009873554805), {}),
    (aten.elu.default, (0.4,), {}),
    (aten.celu.default, (2.0,), {}),
    (aten.exp.default, (), {}),
    (aten.expm1.default, (), {}),
    (aten.log.default, (), {}),
    (aten.log1p.default, (), {}),
    (aten.sqrt.default, (), {}),
    (aten.rsqrt.default, (), {}),
    (aten.reciprocal.default, (), {}),
    (aten.square.default, (), {}),
    (aten.pow.Tensor_Scalar, (2,), {}),
    (aten.pow.Tensor_Scalar, (3,), {}),
    (aten.pow.Tensor_Scalar, (1.5,), {}),
    (aten.hardtanh.default, (-1.0, 1.0), {}),
    (aten.hardtanh.default, (0.0, 6.0), {}),
    (aten.clamp.default, (0.25, None), {}),
    (aten.clamp.default, (None, 1.0), {}),
    (aten.clamp_min.default, (0.25,), {}),
    (aten.hardsigmoid.default, (), {}),
    (aten.hardswish.default, (), {}),
]
NAMES = [f"{op}{args}{kwargs or ''}" for op, args, kwargs in CALLS]


def call(op, args, kwargs) -> SimpleNamespace:
    """As much of a node as lines are made from."""
    return SimpleNamespace(op=op, args=(Ref(0), *args), kwargs=kwargs)


def value(op, args, kwargs, x: Tensor) -> Tensor:
    if op is aten.log_sigmoid.default:
        return torch.nn.functional.logsigmoid(x)
    return op(x, *args, **kwargs)


def intervals(op, args, count: int, seed: int) -> Interval:
    """Of all sizes and places, with knots and points among their ends."""
    draw = torch.Generator().manual_seed(seed)
    middle = torch.randn(count, generator=draw) * 3
    width = 10 ** (torch.rand(count, generator=draw) * 6 - 4)
    low, high = middle - width / 2, middle + width / 2
    low[:20], high[:20] = 0.0, high[:20].abs()
    low[20:40], high[20:40] = low[20:40].abs().neg(), 0.0
    high[40:60] = low[40:60]
    if op in POSITIVE or args == (1.5,):
        low, high = low.abs() + 1e-3, low.abs() + 1e-3 + (high - low)
    if op is aten.log1p.default:
        low, high = low.abs() - 0.999, low.abs() - 0.999 + (high - low)
    return Interval(low, high)


def worst(lines, box: Interval, f, points: int) -> tuple[float, float]:
    """How far the function leaves its lines below and above, over grids, in float64."""
    low, high = box.lower.double()[:, None], box.upper.double()[:, None]
    x = low + (high - low) * torch.linspace(0, 1, points, dtype=torch.float64)
    y = f(x)
    under = y - (lines.lower_slope.double()[:, None] * x + lines.lower_offset.double()[:, None])
    over = lines.upper_slope.double()[:, None] * x + lines.upper_offset.double()[:, None] - y
    return under.min().item(), over.min().item()


@pytest.mark.parametrize("case", CALLS, ids=NAMES)
def test_lines_hold_on_grids(case):
    op, args, kwargs = case
    f = lambda x: value(op, args, kwargs, x)  # noqa: E731
    box = intervals(op, args, 400, 0)
    lines = LINES[op].lines(call(op, args, kwargs), box)
    below, above = worst(lines, box, f, 1001)
    assert min(below, above) >= 0
    # and for the function in the model's own precision
    t = torch.rand(400, 200, generator=torch.Generator().manual_seed(1))
    x = (box.lower[:, None] + (box.upper - box.lower)[:, None] * t).clamp(
        box.lower[:, None], box.upper[:, None]
    )
    y = f(x).double()
    low = lines.lower_slope.double()[:, None] * x + lines.lower_offset.double()[:, None]
    high = lines.upper_slope.double()[:, None] * x + lines.upper_offset.double()[:, None]
    assert bool(((y >= low) & (y <= high)).all())


@pytest.mark.parametrize("case", CALLS, ids=NAMES)
def test_lines_are_of_the_least_area(case):
    """Against the concave and the convex hull of 2,001 points, at the middle."""
    op, args, kwargs = case
    box = intervals(op, args, 120, 2)
    keep = (box.upper - box.lower > 1e-2) & (box.upper - box.lower < 30)
    box = Interval(box.lower[keep], box.upper[keep])
    lines = LINES[op].lines(call(op, args, kwargs), box)
    low, high = box.lower.double()[:, None], box.upper.double()[:, None]
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    x = low + (high - low) * t
    y = value(op, args, kwargs, x)
    middle = (low + high)[:, 0] / 2
    span = (y.amax(1) - y.amin(1)).clamp(min=1e-3)
    for sign, slope, offset in (
        (1, lines.upper_slope, lines.upper_offset),
        (-1, -lines.lower_slope, -lines.lower_offset),
    ):
        left, right = sign * y[:, :1001:20], sign * y[:, 1000::20]
        a, b = t[:1001:20] - 0.5, t[1000::20] - 0.5
        gap = (b[None, :] - a[:, None]).clamp(min=1e-9)
        hull = (left[:, :, None] * b[None, :] - right[:, None, :] * a[:, None]) / gap
        hull[:, -1, 0] = left[:, -1]
        best = hull.flatten(1).amax(1)
        height = slope.double() * middle + offset.double()
        if op is aten.leaky_relu.default or op is aten.relu.default or op is aten.abs.default:
            continue  # one line goes through 0, so that its slope can be optimised
        excess = (height - best - 1e-5 - 2e-6 * (low.abs() + high.abs())[:, 0]) / span
        assert excess.max() <= 2e-2  # the hull is that coarse


@pytest.mark.parametrize("case", CALLS, ids=NAMES)
def test_what_is_no_interval_proves_nothing(case):
    op, args, kwargs = case
    inf, nan = torch.inf, torch.nan
    low = torch.tensor([-inf, 1.0, nan, 0.5, nan, 1.0, 0.0, 0.5, 1e38])
    high = torch.tensor([inf, inf, 1.0, nan, nan, 1e30, 1e-45, 0.5, 3e38])
    lines = LINES[op].lines(call(op, args, kwargs), Interval(low, high))
    x = torch.stack([low, high, low + (high - low) / 2], 1).double()
    y = value(op, args, kwargs, x)
    under = lines.lower_slope.double()[:, None] * x + lines.lower_offset.double()[:, None]
    over = lines.upper_slope.double()[:, None] * x + lines.upper_offset.double()[:, None]
    assert not bool(((under > y) | (over < y)).any())
    ends = torch.stack([under, over], 2)
    assert bool(ends[2:5].isnan().any(2).all())  # the ends that are not a number


def test_a_free_slope_is_differentiable():
    x = Interval(torch.tensor([-1.0, -2.0]), torch.tensor([2.0, 1.0]))
    slope = torch.tensor([0.3, 0.9], requires_grad=True)
    lines = hinge_lines(x, 0.1, slope)
    lines.lower_slope.sum().backward()
    assert slope.grad is not None
    assert slope.grad.tolist() == [1.0, 1.0]
    assert worst(lines, x, lambda v: torch.where(v < 0, v * 0.1, v), 101) >= (0, 0)


@pytest.mark.parametrize("bug", ["tilted", "swapped", "tight"])
def test_planted_bugs_are_seen(bug):
    op, args, kwargs = aten.sigmoid.default, (), {}
    box = intervals(op, args, 400, 3)
    lines = LINES[op].lines(call(op, args, kwargs), box)
    if bug == "tilted":
        lines.upper_slope.mul_(0.9)
    elif bug == "swapped":
        held = lines.lower_offset.clone()
        lines.lower_offset.copy_(lines.upper_offset)
        lines.upper_offset.copy_(held)
    else:
        lines.upper_offset.sub_(1e-3)
    assert min(worst(lines, box, torch.sigmoid, 1001)) < 0

"""The slopes of smooth activations as curves; of bent ones, the few values that they have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from certify import slopes
from certify.curve_table import curve, curve_of
from certify.curves import Curve
from certify.graph import Node
from certify.interval import Interval, as_interval
from certify.interval_unary import hull, only_where, outwards
from certify.linear import Lines
from certify.lines import LINES, Relaxation
from certify.propagate import Context, Value, rule


def _sigmoid_slope(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


@curve(slopes.sigmoid_slope)
def sigmoid_slope() -> Curve:
    """A bell: convex, concave between the knots, convex."""
    knot = 1.3169578969248167086
    return Curve(
        _sigmoid_slope,
        lambda z: _sigmoid_slope(z) * (torch.sigmoid(-z) - torch.sigmoid(z)),
        (-knot, knot),
        (1, -1, 1),
        (0.0,),
        error=2.0**-22,
    )


@curve(slopes.tanh_slope)
def tanh_slope() -> Curve:
    """A bell."""
    knot = 0.65847894846240835431
    return Curve(
        lambda z: 4 * _sigmoid_slope(2 * z),
        lambda z: -8 * _sigmoid_slope(2 * z) * torch.tanh(z),
        (-knot, knot),
        (1, -1, 1),
        (0.0,),
        error=2.0**-21,
    )


@curve(slopes.softplus_slope)
def softplus_slope(beta: float, threshold: float) -> Curve:
    """The logistic function, up to torch's jump at the threshold."""
    return Curve(
        lambda z: torch.sigmoid(z * beta),
        lambda z: beta * _sigmoid_slope(z * beta),
        (0.0,),
        (1, -1),
        error=math.exp(-threshold) + 2.0**-22,
    )


def _phi(z: Tensor) -> Tensor:
    return torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


@curve(slopes.gelu_slope)
def gelu_slope(approximate: str = "none") -> Curve:
    """Falls, rises above 1, and falls to it: concave, convex, concave, convex."""
    if approximate == "tanh":
        turn, knot = 1.4185040087908283555, 2.0134807246242579281
        return Curve(
            lambda z: slopes.gelu_slope(z, "tanh"),
            _gelu_tanh_bend,
            (-knot, 0.0, knot),
            (-1, 1, -1, 1),
            (-turn, turn),
            error=2.0**-20,
        )
    return Curve(
        slopes.gelu_slope,
        lambda z: _phi(z) * (2 - z * z),
        (-2.0, 0.0, 2.0),
        (-1, 1, -1, 1),
        (-math.sqrt(2), math.sqrt(2)),
        error=2.0**-20,
    )


def _gelu_tanh_bend(z: Tensor) -> Tensor:
    k, c = math.sqrt(8 / math.pi), 0.044715
    rate, bent = k * (1 + 3 * c * z * z), 6 * k * c * z
    s = torch.sigmoid(k * (z + c * z**3))
    spread = s * torch.sigmoid(-k * (z + c * z**3))
    return spread * (2 * rate + z * (rate * rate * (1 - 2 * s) + bent))


@curve(slopes.silu_slope)
def silu_slope() -> Curve:
    """Like that of GELU, wider."""
    turn, knot = 2.3993572805154676678, 3.4358409935351106890
    return Curve(
        slopes.silu_slope,
        lambda z: _sigmoid_slope(z) * (2 - z * torch.tanh(z / 2)),
        (-knot, 0.0, knot),
        (-1, 1, -1, 1),
        (-turn, turn),
        error=2.0**-20,
    )


@rule(
    slopes.sigmoid_slope,
    slopes.tanh_slope,
    slopes.softplus_slope,
    slopes.gelu_slope,
    slopes.silu_slope,
)
def smooth_slope(context: Context, z: Value, *args: Any, **kwargs: Any) -> Interval:
    """The values at the ends, and at the turns inside; differences in them cancel against 1."""
    made, z = curve_of(context.node), as_interval(z)
    points = [(z.lower * 0 + turn).clamp(z.lower, z.upper) for turn in made.turns]
    values = [made.value(point) for point in (z.lower, z.upper, *points)]
    found = outwards(hull(values[0], *values[1:]), context.rounding, 4.0)
    if context.node.op not in _SIGNED:
        found = Interval(found.lower.clamp(min=0), found.upper, positive=True)
    if context.node.op is slopes.softplus_slope:  # torch's jump to 1
        beta, threshold = args
        jumped = z.upper * beta >= threshold * (1 - 1e-5)
        return replace(found, upper=torch.where(jumped, found.upper.clamp(min=1), found.upper))
    return found


_SIGNED: set[Any] = {slopes.gelu_slope, slopes.silu_slope}
"""The slopes that are negative somewhere."""


def _step(z: Interval, at: float) -> Interval:
    return _mask(z.lower > at, z.upper < at, z)


def _two_slopes(z: Interval, left: float) -> Interval:
    one = torch.ones_like(z.lower)
    found = hull(*(torch.where(end, one, left) for end in (z.lower > 0, z.upper >= 0)))
    return replace(found, positive=left >= 0)


def _between(z: Interval, low: float, high: float) -> Interval:
    inside = (z.lower > low) & (z.upper < high)
    return _mask(inside, (z.upper < low) | (z.lower > high), z)


def _mask(one: Tensor, zero: Tensor, z: Interval) -> Interval:
    """Anything from 0 to 1 where it is known to be neither, as where ends are NaN."""
    kind = z.lower.dtype
    return Interval(one.to(kind), zero.logical_not().to(kind), positive=True)


def _elu(z: Interval, alpha: float, scale: float, input_scale: float) -> Interval:
    left = alpha * scale * input_scale
    low, high = (left * torch.exp(end.clamp(max=0) * input_scale) for end in (z.lower, z.upper))
    bent = hull(low, high)
    return Interval(
        torch.where(z.lower > 0, scale, torch.where(z.upper >= 0, bent.lower.clamp(max=scale), 0.0))
        + torch.where(z.upper < 0, bent.lower, 0.0),
        torch.where(z.lower > 0, scale, torch.where(z.upper >= 0, bent.upper.clamp(min=scale), 0.0))
        + torch.where(z.upper < 0, bent.upper, 0.0),
    )


BENT: dict[Any, Callable[..., Interval]] = {
    slopes.step: _step,
    slopes.two_slopes: _two_slopes,
    slopes.between: _between,
    slopes.elu_slope: _elu,
}
"""Slopes with jumps or kinks: all that they are over an interval (Clarke)."""


@rule(*BENT)
def bent_slope(context: Context, z: Value, *args: float) -> Interval:
    """Both sides of a kink, wherever the interval reaches it."""
    z, op = as_interval(z), context.node.op
    found = BENT[op](z, *args)
    if op in slopes.MASKS:
        return found
    positive = found.positive
    found = replace(only_where(~(z.lower.isnan() | z.upper.isnan()), found), positive=positive)
    if op is not slopes.elu_slope:
        return found
    return outwards(found, context.rounding, max(1.0, abs(math.prod(args))))


def _flat(node: Node, z: Interval) -> Lines:
    found = BENT[node.op](z, *node.args[1:])
    none = torch.zeros_like(z.lower)
    if node.op in slopes.MASKS:
        return Lines(none, found.lower, none, found.upper)
    slop = none
    if node.op is slopes.elu_slope:
        slop = none + torch.finfo(none.dtype).eps * 32 * max(1.0, abs(math.prod(node.args[1:])))
    nan = torch.where(z.lower.isnan() | z.upper.isnan(), torch.nan, none)
    return Lines(none + nan, found.lower - slop, none + nan, found.upper + slop)


def _open(node: Node, z: Interval) -> Tensor:
    """Where the slope is not known; of ELU, left of 0, a tighter interval always helps."""
    if node.op is slopes.elu_slope:
        return (z.lower < 0) & (z.lower < z.upper)
    found = BENT[node.op](z, *node.args[1:])
    return found.lower < found.upper


LINES.update(dict.fromkeys(BENT, Relaxation(_flat, _open)))

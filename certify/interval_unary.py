"""Interval rules of functions of one number: exact ranges, rounded outwards.

Of a function that only rises or falls the ends give the ends; of one with a valley, the least
value counts too where its place is inside. Outwards by `Rounding.function` of the value, and, where
torch computes it by a difference that cancels, by as much of the argument or of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from certify.graph import unsupported
from certify.interval import Interval, as_interval
from certify.propagate import Context, Value, rule
from certify.rounding import Rounding

aten = torch.ops.aten


def outwards(x: Interval, rounding: Rounding, absolute: float | Tensor = 0.0) -> Interval:
    """Widen the values of an elementary function by its error, and by that of `absolute`.

    A value too large for the type is at least as large as the largest there is.
    """
    if not rounding.unit:
        return x
    top, share = torch.finfo(x.lower.dtype).max, rounding.function
    error = absolute * share + rounding.tiny
    low, high = x.lower.clamp(max=top), x.upper.clamp(min=-top)
    return Interval(low - (low.abs() * share + error), high + (high.abs() * share + error))


@rule(
    aten.relu.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.hardshrink.default,
    aten.sgn.default,
)
def exact(context: Context, x: Value, *args: Any, **kwargs: Any) -> Interval:
    """Never falls, and does not round."""
    op: Any = context.node.op
    x = as_interval(x)
    if op is aten.relu.default and x.spare:
        return Interval(x.lower.relu_(), x.upper.relu_(), positive=True)
    result = x.each(lambda end: op(end, *args, **kwargs))
    return replace(result, positive=op is aten.relu.default)


_RISING: dict[Any, tuple[float, float, float]] = {
    aten.sigmoid.default: (0.0, 1.0, 0.0),
    aten.tanh.default: (-1.0, 1.0, 0.0),
    aten.erf.default: (-1.0, 1.0, 0.0),
    aten.atan.default: (-math.pi, math.pi, 0.0),
    aten.exp.default: (0.0, math.inf, 0.0),
    aten.expm1.default: (-1.0, math.inf, 0.0),
    aten.log_sigmoid.default: (-math.inf, 0.0, 0.0),
    aten.hardsigmoid.default: (0.0, 1.0, 1.0),
}
"""Least value, largest value, and the absolute error in units of that of a function's value."""


@rule(*_RISING)
def rising(context: Context, x: Value) -> Interval:
    """Rises throughout."""
    op: Any = context.node.op
    least, most, absolute = _RISING[op]
    result = outwards(as_interval(x).each(op), context.rounding, absolute)
    return result.each(lambda end: end.clamp(least, most))


_DOMAINS: dict[Any, float] = {
    aten.log.default: 0.0,
    aten.log2.default: 0.0,
    aten.log10.default: 0.0,
    aten.log1p.default: -1.0,
    aten.sqrt.default: 0.0,
}


@rule(*_DOMAINS)
def rising_from(context: Context, x: Value) -> Interval:
    """Rises from where it is defined; NaN where the interval reaches out of that."""
    op: Any = context.node.op
    x = as_interval(x)
    result = outwards(x.each(op), context.rounding)
    if op is aten.sqrt.default:
        result = result.each(lambda end: end.clamp_min(0))
    return only_where(x.lower >= _DOMAINS[op], result)


def only_where(defined: Tensor, x: Interval) -> Interval:
    """NaN for both ends where a function is not defined on the whole interval."""
    return x.each(lambda end: torch.where(defined, end, math.nan))


@rule(aten.reciprocal.default)
def reciprocal(context: Context, x: Value) -> Interval:
    """Falls on either side of its pole, across which it is anything."""
    x = as_interval(x)
    return inverse(x, outwards(Interval(1 / x.upper, 1 / x.lower), context.rounding))


def inverse(x: Interval, result: Interval) -> Interval:
    """A quotient's interval: without ends if the divisor x may be zero, NaN if x is."""
    safe = (x.lower > 0) | (x.upper < 0)
    result = Interval(
        torch.where(safe, result.lower, -math.inf), torch.where(safe, result.upper, math.inf)
    )
    return only_where(~(x.lower.isnan() | x.upper.isnan()), result)


@rule(aten.rsqrt.default)
def rsqrt(context: Context, x: Value) -> Interval:
    """Falls where it is defined."""
    x = as_interval(x)
    result = outwards(Interval(x.upper.rsqrt(), x.lower.rsqrt()), context.rounding)
    return only_where(x.lower >= 0, result.each(lambda end: end.clamp_min(0)))


@rule(aten.elu.default, aten.celu.default)
def elu(context: Context, x: Value, *args: float) -> Interval:
    """Rises; torch takes exp(x) - 1, which near 0 is wrong by units of alpha."""
    op: Any = context.node.op
    if any(a <= 0 for a in args):
        raise unsupported(context.node, "falls: a factor in it is not positive")
    size = max(1.0, math.prod(args[:2]))
    return outwards(as_interval(x).each(lambda end: op(end, *args)), context.rounding, size)


@rule(aten.leaky_relu.default, aten._prelu_kernel.default)
def leaky_relu(context: Context, x: Value, slope: float | Value = 0.01) -> Interval:
    """`max(x, 0) + slope * min(x, 0)`, for any slope, or an interval of slopes."""
    x = as_interval(x)
    if isinstance(slope, float | int) and slope >= 0:
        op: Any = context.node.op
        return outwards(x.each(lambda end: op(end, slope)), context.rounding)
    if not isinstance(slope, Tensor | Interval):
        slope = x.lower.new_tensor(slope)
    bent = product(x.each(lambda end: end.clamp(max=0)), as_interval(slope), context.rounding)
    return Interval(
        torch.where(x.lower >= 0, x.lower, bent.lower),
        torch.where(x.upper <= 0, bent.upper, torch.maximum(bent.upper, x.upper)),
    )


def product(x: Interval, y: Interval, rounding: Rounding) -> Interval:
    """All products of a number in one and a number in the other."""
    return rounded(unrounded_product(x, y), rounding)


def unrounded_product(x: Interval, y: Interval) -> Interval:
    """The same, with ends as floating point gives them; fewer passes where y is not negative."""
    if y.positive:
        return Interval(
            torch.minimum(x.lower * y.lower, x.lower * y.upper),
            torch.maximum(x.upper * y.lower, x.upper * y.upper),
        )
    ends = (
        x.lower * y.lower,
        x.lower * y.upper,
        x.upper * y.lower,
        x.upper * y.upper,
    )
    return hull(*ends)


def hull(first: Tensor, *others: Tensor) -> Interval:
    """The smallest interval that holds them all; NaN if one is."""
    low = high = first
    for other in others:
        low, high = torch.minimum(low, other), torch.maximum(high, other)
    return Interval(low, high)


def rounded(x: Interval, rounding: Rounding) -> Interval:
    """Widen the results of one arithmetic operation each."""
    return x.widened(2 * rounding.unit, rounding.tiny) if rounding.unit else x


@rule(aten.softplus.default)
def softplus(context: Context, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Interval:
    """Rises, but for the step down to x at the threshold."""
    if beta <= 0 or threshold < 0:
        raise unsupported(context.node, "has a beta or threshold that is not positive")
    x, knee = as_interval(x), threshold / beta
    plain = x.each(lambda end: functional.softplus(end, beta, threshold))
    low = torch.where(
        (x.lower <= knee) & (x.upper > knee), plain.lower.clamp(max=knee), plain.lower
    )
    beyond = x.upper.clamp(min=knee)  # without the step, and above it
    smooth = beyond + torch.log1p(torch.exp(-beta * beyond)) / beta
    high = torch.where(x.upper > knee, smooth, plain.upper)
    size = 0.0 if beta == 1 else x.magnitude + abs(knee)
    result = outwards(Interval(low, high), context.rounding, size)
    return replace(result, lower=result.lower.clamp_min(0))


@rule(aten.softshrink.default)
def softshrink(context: Context, x: Value, shrink: float = 0.5) -> Interval:
    """Rises; the difference it takes rounds as the argument does."""
    x = as_interval(x)
    result = x.each(lambda end: functional.softshrink(end, shrink))
    return outwards(result, context.rounding, shrink)


@rule(aten.threshold.default)
def threshold(context: Context, x: Value, at: float, value: float) -> Interval:
    """X above the threshold, elsewhere the value."""
    x = as_interval(x)
    low = torch.where(x.lower > at, x.lower, x.lower.clamp_min(at).clamp(max=value))
    high = torch.where(x.lower > at, x.upper, x.upper.clamp_min(value))
    below = x.upper <= at
    fixed = Interval(torch.where(below, value, low), torch.where(below, value, high))
    return only_where(~(x.lower.isnan() | x.upper.isnan()), fixed)


@rule(aten.abs.default)
def absolute(context: Context, x: Value) -> Interval:
    """Exact."""
    return valley(as_interval(x), torch.abs, 0.0, 0.0)


def valley(
    x: Interval, function: Callable[[Tensor], Tensor], place: float, least: float
) -> Interval:
    """Range of a function that falls up to a place and rises from there."""
    ends = hull(function(x.lower), function(x.upper))
    inside = (x.lower <= place) & (x.upper >= place)
    return Interval(torch.where(inside, least, ends.lower), ends.upper)


_VALLEYS: dict[tuple[Any, str], tuple[float, float]] = {
    (aten.gelu.default, "none"): (-0.75179152469356446, -0.16997120747990366),
    (aten.gelu.default, "tanh"): (-0.75246142207101626, -0.17004075057125405),
    (aten.silu.default, ""): (-1.2784645427610738, -0.27846454276107380),
    (aten.mish.default, ""): (-1.1924312145154952, -0.30884341301725041),
    (aten.hardswish.default, ""): (-1.5, -0.375),
}
"""Where each is least, and how much it is there."""


@rule(aten.gelu.default, aten.silu.default, aten.mish.default, aten.hardswish.default)
def smooth(context: Context, x: Value, approximate: str = "none") -> Interval:
    """Functions with a valley; 1 + erf and 1 + tanh cancel, so that x sets the error's scale."""
    op: Any = context.node.op
    x, gelu = as_interval(x), op is aten.gelu.default
    kwargs = {"approximate": approximate} if gelu else {}
    place, least = _VALLEYS[op, approximate if gelu else ""]
    # below the clamp they are 0 but for less than `tiny`, and at -inf torch gives NaN
    result = valley(x, lambda end: op(end.clamp_min(-1e4), **kwargs), place, least)
    return outwards(result, context.rounding, x.magnitude)


@rule(aten.pow.Tensor_Scalar)
def power(context: Context, x: Value, exponent: float) -> Interval:
    """Powers with a fixed exponent."""
    x = as_interval(x)

    def raised(end: Tensor) -> Tensor:
        return end.pow(exponent)

    if exponent == 0:
        return x.each(torch.ones_like)
    if exponent == 1:
        return x
    whole = float(exponent).is_integer()
    if exponent < 0:
        positive = power(context, x, -exponent)
        return reciprocal(context, positive)
    if whole and exponent % 2 == 0:
        return outwards(valley(x, raised, 0.0, 0.0), context.rounding).each(
            lambda end: end.clamp_min(0)
        )
    result = outwards(x.each(raised), context.rounding)
    return result if whole else only_where(x.lower >= 0, result.each(lambda e: e.clamp_min(0)))

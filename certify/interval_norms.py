"""Interval rules of normalisation by what the values themselves are, and of norms and variances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from certify import slopes
from certify.graph import unsupported
from certify.interval import Interval, as_interval
from certify.interval_unary import product, rounded
from certify.propagate import Context, Value, rule
from certify.rounding import Rounding

aten = torch.ops.aten


def _deviations(x: Interval, dims: list[int], rounding: Rounding) -> tuple[Interval, Tensor]:
    """`x - mean(x)`, an entry's own share of the mean going with it; and the error in each."""
    count = math.prod(x.shape[d] for d in dims)
    means = x.each(lambda end: end.mean(dims, keepdim=True))
    own = (x.upper - x.lower) / count
    error = 2.1 * rounding.gamma(count + 8) * x.magnitude.amax(dims, keepdim=True) + rounding.tiny
    low, high = x.lower - means.upper + own, x.upper - means.lower - own
    return Interval(low - error, high + error), error


def _squares(x: Interval) -> Interval:
    """Range of the squares."""
    return Interval(torch.maximum(x.lower, -x.upper).clamp_min(0).square(), x.magnitude.square())


def _normalized(x: Interval, dims: list[int], eps: float, rounding: Rounding) -> Interval:
    """`(x - mean) / sqrt(var + eps)`.

    With d = x - mean, and r the sum of the others' squares, it is d / sqrt((d^2 + r) / n + eps):
    rising in d, and shrinking in r; and r >= d^2 / (n - 1), since deviations sum to zero.
    """
    count = math.prod(x.shape[d] for d in dims)
    d, error = _deviations(x, dims, rounding)
    squares = _squares(d)
    sums = squares.each(lambda end: end.sum(dims, keepdim=True))
    gamma = 2.1 * rounding.gamma(count + 16)
    least = (sums.lower * (1 - gamma) - squares.lower).clamp_min(0)
    most = (sums.upper - squares.upper).clamp_min(0) + sums.upper * gamma

    def at(end: Tensor, away: Tensor) -> Tensor:
        own = (end.abs() - count * error).clamp_min(0).square() / max(1, count - 1)
        rest = torch.where(away, torch.maximum(least, own), most)
        square = end.square() + rest
        return torch.where(square < math.inf, end / (square / count + eps).sqrt(), math.nan)

    result = Interval(at(d.lower, d.lower < 0), at(d.upper, d.upper > 0))
    return result.widened(gamma, rounding.tiny) if rounding.unit else result


def _scaled(x: Interval, weight: Value | None, bias: Value | None, context: Context) -> Interval:
    """`x * weight + bias`."""
    if weight is not None:
        x = product(x, as_interval(weight), context.rounding)
    if bias is None:
        return x
    offset = as_interval(bias)
    error = (x.magnitude + offset.magnitude) * context.rounding.gamma(6)
    return Interval(x.lower + offset.lower - error, x.upper + offset.upper + error)


@rule(aten.layer_norm.default)
def layer_norm(
    context: Context,
    x: Value,
    shape: list[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: bool,
) -> Interval:
    """Over the last dimensions."""
    dims = list(range(-len(shape), 0))
    return _scaled(_normalized(as_interval(x), dims, eps, context.rounding), weight, bias, context)


@rule(aten.group_norm.default)
def group_norm(
    context: Context,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: bool,
) -> Interval:
    """Over groups of channels; instance norm has one channel in each."""
    x = as_interval(x)
    shape = x.shape
    flat = x.each(lambda end: end.reshape(shape[0], groups, -1))
    found = _normalized(flat, [-1], eps, context.rounding).each(lambda end: end.reshape(shape))
    return _scaled(found, _channels(weight, x), _channels(bias, x), context)


def _channels(value: Value | None, x: Interval) -> Interval | None:
    """One value a channel, to broadcast with a batch."""
    if value is None:
        return None
    return as_interval(value).each(lambda end: end.view(1, -1, *(1,) * (len(x.shape) - 2)))


@rule(slopes.batch_norm_back)
def batch_norm_back(
    context: Context, g: Value, weight: Value | None, var: Value, eps: float
) -> Interval:
    """Through batch norm in eval mode, with parameters that are intervals."""
    g, slop = as_interval(g), context.rounding
    variance = _channels(var, g)
    assert variance is not None
    scale = Interval((variance.upper + eps).rsqrt(), (variance.lower + eps).rsqrt())
    scale = rounded(rounded(scale, slop), slop)
    if weight is not None:
        scale = product(scale, _channels(weight, g) or scale, slop)
    return rounded(product(g, scale, slop), slop)


@rule(aten.batch_norm.default)
def batch_norm(
    context: Context,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    training: bool,
    momentum: float,
    eps: float,
    *_: bool,
) -> Interval:
    """In eval mode, with parameters that are intervals."""
    x, slop = as_interval(x), context.rounding
    middle, variance = _channels(mean, x), _channels(var, x)
    assert middle is not None
    assert variance is not None
    scale = Interval((variance.upper + eps).rsqrt(), (variance.lower + eps).rsqrt())
    scale = rounded(rounded(scale, slop), slop)
    if weight is not None:
        scale = product(scale, _channels(weight, x) or scale, slop)
    result = product(Interval(x.lower - middle.upper, x.upper - middle.lower), scale, slop)
    # torch multiplies first, which rounds as either product does
    error = (x.magnitude + middle.magnitude) * scale.magnitude * (2 * slop.gamma(12)) + slop.tiny
    result = Interval(result.lower - error, result.upper + error)
    return _scaled(result, None, _channels(bias, x), context)


@rule(aten.linalg_vector_norm.default)
def vector_norm(
    context: Context,
    x: Value,
    order: float = 2,
    dim: list[int] | None = None,
    keepdim: bool = False,
    **_: object,
) -> Interval:
    """Of orders 1, 2 and infinity."""
    if order not in (1, 2, math.inf) or dim is None:
        raise unsupported(context.node, f"has a rule for orders 1, 2 and inf only, not {order}")
    squares = _squares(as_interval(x))
    if order == 2:
        found = squares.each(lambda end: end.sum(dim, keepdim).sqrt())
    elif order == 1:
        found = squares.each(lambda end: end.sqrt().sum(dim, keepdim))
    else:
        found = squares.each(lambda end: end.sqrt().amax(dim, keepdim))
    return _shares(found, squares, context)


def _shares(found: Interval, terms: Interval, context: Context) -> Interval:
    """Widen sums of numbers that are not negative, and keep them so."""
    if not context.rounding.unit:
        return found
    count = terms.lower.numel() // max(1, found.lower.numel())
    wide = found.widened(2.1 * context.rounding.gamma(count + 12), context.rounding.tiny**0.5)
    return wide.each(lambda end: end.clamp_min(0))


@rule(aten.var.correction, aten.std.correction)
def variance(
    context: Context,
    x: Value,
    dim: list[int] | None = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
) -> Interval:
    """Mean squared deviation, and its root."""
    x = as_interval(x)
    if dim is None:
        raise unsupported(context.node, "mixes samples: name the dimensions")
    count = math.prod(x.shape[d] for d in dim)
    squares = _squares(_deviations(x, dim, context.rounding)[0])
    found = squares.each(lambda end: end.sum(dim, keepdim) / (count - correction))
    if context.node.op is aten.std.correction:
        found = found.each(torch.sqrt)
    return _shares(found, squares, context)

"""Interval rules of softmax and its kin, exact ranges: each entry against the others' other ends.

softmax(x)_i = sigmoid(x_i - logsumexp of the others), which rises in x_i and falls in the others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from certify.interval import Interval, as_interval
from certify.propagate import Context, Value, rule

aten = torch.ops.aten


@rule(aten.softmax.int)
def softmax(context: Context, x: Value, dim: int) -> Interval:
    """Shares of each entry."""
    x = as_interval(x)
    against, error = _against_others(x, dim, context)
    result = against.each(torch.sigmoid)
    if context.rounding.unit:
        result = result.widened(float(context.rounding.function), context.rounding.tiny)
        result = Interval(result.lower * (1 - error).clamp_min(0), result.upper * (1 + 2 * error))
    return result.each(lambda end: end.clamp(0, 1))


@rule(aten.log_softmax.int)
def log_softmax(context: Context, x: Value, dim: int) -> Interval:
    """Logarithms of the shares."""
    x = as_interval(x)
    against, error = _against_others(x, dim, context)
    result = against.each(functional.logsigmoid)
    if context.rounding.unit:
        result = result.widened(context.rounding.function, context.rounding.tiny)
        result = Interval(result.lower - error, result.upper + error)
    return result.each(lambda end: end.clamp(max=0))


def _against_others(x: Interval, dim: int, context: Context) -> tuple[Interval, Tensor]:
    """Each entry less the others' logsumexp, and what rounding may add to it in all.

    That is what it does here, to the differences from the largest and to the sum, and again what
    it does to those in the model, relative to the shares.
    """
    others = Interval(_others(x.lower, dim), _others(x.upper, dim))
    against = Interval(x.lower - others.upper, x.upper - others.lower)
    gamma = context.rounding.gamma(x.shape[dim] + 8) + 2 * context.rounding.function
    size = x.magnitude.amax(dim, keepdim=True)
    error = (4 * gamma + 8 * context.rounding.unit * size).clamp(max=0.5)
    if not context.rounding.unit:
        return against, error
    return Interval(against.lower - error, against.upper + error), error


def _others(x: Tensor, dim: int) -> Tensor:
    """For each entry the logsumexp of all the others; -inf if there are none.

    Only for the largest is it another sum than all of them less one; that one is no more than half
    of the sum for the rest, so nothing cancels.
    """
    first = x.argmax(dim, keepdim=True)
    is_first = torch.zeros_like(x, dtype=torch.bool).scatter(dim, first, True)
    top = x.amax(dim, keepdim=True)
    rest = x.masked_fill(is_first, -torch.inf)
    second = rest.logsumexp(dim, keepdim=True)
    shares = (x - top).exp()
    others = top + (shares.sum(dim, keepdim=True) - shares.masked_fill(is_first, 0)).log()
    return torch.where(is_first, second, others)


@rule(aten.logsumexp.default)
def logsumexp(context: Context, x: Value, dim: list[int], keepdim: bool = False) -> Interval:
    """Rises in every entry."""
    x = as_interval(x)
    result = x.each(lambda end: end.logsumexp(dim, keepdim))
    if not context.rounding.unit:
        return result
    count = x.lower.numel() // max(1, result.lower.numel())
    error = 4 * (context.rounding.gamma(count + 8) + context.rounding.function)
    return result.widened(2 * context.rounding.function, error)

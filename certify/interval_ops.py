"""Interval rules of what is not linear."""

from __future__ import annotations

import torch
from torch import Tensor

from certify.interval import Interval, as_interval
from certify.propagate import Context, Value, rule

aten = torch.ops.aten


@rule(aten.relu.default)
def relu(context: Context, x: Value) -> Interval:
    """Increasing, and exact."""
    return as_interval(x).each(torch.relu)


@rule(aten.add.Tensor, aten.sub.Tensor)
def add(context: Context, x: Value, y: Value, alpha: float = 1.0) -> Interval:
    """Sum or difference of two intervals (residual connections)."""
    sign = -alpha if context.node.op is aten.sub.Tensor else alpha
    a, b = as_interval(x), as_interval(y)
    low, high = (b.lower, b.upper) if sign >= 0 else (b.upper, b.lower)
    result = Interval(a.lower + low * sign, a.upper + high * sign)
    slop = context.rounding
    if not slop.unit:
        return result
    size: Tensor = a.magnitude + b.magnitude * abs(sign)
    error = size * slop.gamma(6) + slop.tiny
    return Interval(result.lower - error, result.upper + error)

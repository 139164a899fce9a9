"""Interval rules of arithmetic between two values that both depend on the input, or that are sets.

Where both factors of a matrix product are intervals, by midpoint and radius (Rump, BIT 39, 1999).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from certify.affine_moves import MOVES
from certify.interval import Interval, as_interval
from certify.interval_unary import (
    hull,
    inverse,
    product,
    rounded,
    unrounded_product,
    valley,
)
from certify.propagate import Context, Value, rule
from certify.slopes import MASKS

aten = torch.ops.aten


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


@rule(aten.mul.Tensor, aten.mul.Scalar)
def multiply(context: Context, x: Value, y: Value | float) -> Interval:
    """Product of two intervals; of one with itself, its square."""
    if len(set(context.node.inputs)) == 1 and context.node.args[0] == context.node.args[1]:
        return _square(as_interval(x), context)
    a, b = _interval(x, context), _interval(y, context)
    if a.positive and not b.positive:
        a, b = b, a
    if _masks(context):
        return unrounded_product(a, b)
    return product(a, b, context.rounding)


def _masks(context: Context) -> bool:
    """Whether one factor is 0 or 1 wherever it is known: no product of ends rounds."""
    nodes = context.program.graph.nodes
    return any(nodes[index].op in MASKS for index in context.node.inputs)


def _square(x: Interval, context: Context) -> Interval:
    result = rounded(valley(x, torch.square, 0.0, 0.0), context.rounding)
    return Interval(result.lower.clamp_min(0), result.upper)


def _interval(value: Any, context: Context) -> Interval:
    """A number or a tensor of any type as an interval."""
    if isinstance(value, Interval):
        return value
    return Interval.point(torch.as_tensor(value).to(context.program.dtype))


@rule(aten.div.Tensor)
def divide(context: Context, x: Value, y: Value) -> Interval:
    """Quotient of two intervals; without ends where the divisor may be zero."""
    a, b = _interval(x, context), _interval(y, context)
    ends = (
        a.lower / b.lower,
        a.lower / b.upper,
        a.upper / b.lower,
        a.upper / b.upper,
    )
    return inverse(b, rounded(hull(*ends), context.rounding))


@rule(aten.maximum.default, aten.minimum.default, aten.clamp_min.Tensor)
def extremum(context: Context, x: Value, y: Value) -> Interval:
    """The larger or the smaller of two, exact."""
    op: Any = context.node.op
    a, b = _interval(x, context), _interval(y, context)
    return Interval(op(a.lower, b.lower), op(a.upper, b.upper))


@rule(*MOVES, aten.clamp.Tensor)
def moved(context: Context, *args: Any, **kwargs: Any) -> Interval:
    """Entries of several intervals, moved or chosen by size: each end from the like ends."""
    op: Any = context.node.op
    return Interval(op(*_ends(args, "lower"), **kwargs), op(*_ends(args, "upper"), **kwargs))


def _ends(argument: Any, end: str) -> Any:
    if isinstance(argument, Interval):
        return getattr(argument, end)
    if isinstance(argument, list | tuple):
        return [_ends(part, end) for part in argument]
    return argument


@rule(aten.mm.default, aten.bmm.default)
def matmul(context: Context, x: Value, y: Value) -> Interval:
    """Product of two matrices of intervals."""
    a, b = as_interval(x), as_interval(y)
    gamma = 2.1 * context.rounding.gamma(a.shape[-1] + 8)
    center, other = a.center, b.center
    middle, size = center @ other, other.abs()
    inner = b.radius * (1 + 3 * gamma) + size * (2 * gamma)
    spread = center.abs() @ inner + (a.radius * (1 + 3 * gamma)) @ (size + b.radius)
    spread = spread * (1 + 3 * gamma) + context.rounding.tiny
    return Interval(middle - spread, middle + spread)


@rule(aten.addmm.default, aten.baddbmm.default)
def matmul_and_add(
    context: Context, bias: Value, x: Value, y: Value, beta: float = 1.0, alpha: float = 1.0
) -> Interval:
    """`beta * bias + alpha * x @ y`."""
    found = matmul(context, x, y)
    scaled = product(found, _interval(alpha, context), context.rounding)
    if beta == 0:
        return scaled
    offset = product(_interval(bias, context), _interval(beta, context), context.rounding)
    size = scaled.magnitude + offset.magnitude
    error = size * context.rounding.gamma(6) + context.rounding.tiny
    return Interval(scaled.lower + offset.lower - error, scaled.upper + offset.upper + error)


@rule(aten.glu.default)
def glu(context: Context, x: Value, dim: int = -1) -> Interval:
    """One half times the sigmoid of the other."""
    x = as_interval(x)
    lows, highs = x.lower.chunk(2, dim), x.upper.chunk(2, dim)
    share = 2 * context.rounding.function
    gate = Interval(lows[1].sigmoid(), highs[1].sigmoid()).widened(share, context.rounding.tiny)
    gate = gate.each(lambda end: end.clamp(0, 1))
    return product(Interval(lows[0], highs[0]), gate, context.rounding)

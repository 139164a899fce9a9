"""Interval bound propagation: every node of a program, from its inputs' intervals to its own.

Linear maps go by midpoint and radius, with the rounding of both (Rump, BIT 39, 1999); everything
else by a rule of its own in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from certify.graph import Node, unsupported
from certify.interval import Interval, as_interval
from certify.maps import LinearMap, Rearrangement, affine
from certify.program import Program
from certify.rounding import OFF, Rounding

Value = Tensor | Interval


@dataclass(frozen=True, eq=False)
class Context:
    """What a rule may know.

    Attributes:
        program: The program.
        node: The call.
        rounding: What to allow for rounding.
        batch: Rows of the batched inputs.
    """

    program: Program
    node: Node
    rounding: Rounding
    batch: int


Rule = Callable[..., Interval]
"""`rule(context, *args, **kwargs)`: the call's arguments, intervals or points where it has any."""

RULES: dict[Any, Rule] = {}


def rule(*ops: Any) -> Callable[[Rule], Rule]:
    """Register a rule for operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return register


def propagate(
    program: Program, inputs: Mapping[str, Value], *, rounded: bool = True
) -> dict[int, Value]:
    """Bound every node.

    Args:
        program: A bound program.
        inputs: A box (or a point) for each input; the batched ones (batch, *shape).
        rounded: Whether to allow for rounding, so that the intervals hold both the real values
            and whatever floating point gives; False for training alone.

    Returns:
        By node, an interval that holds its value, for the inputs and every call.

    Raises:
        UnsupportedError: An operation has no rule.
    """
    (batch,) = {len(as_interval(inputs[n]).lower) for n in program.graph.batched}
    rounding = Rounding.of(program.dtype) if rounded else OFF
    values: dict[int, Value] = {program.inputs[name]: value for name, value in inputs.items()}
    for node in program.nodes:
        values[node.index] = bound(program, node, values, rounding, batch)
    if program.output in program.constants:  # the input does not matter
        values[program.output] = as_interval(program.constant(program.output, batch))
    return values


def bound(
    program: Program, node: Node, values: Mapping[int, Value], rounding: Rounding, batch: int
) -> Value:
    """Bound one call from bounds of its inputs."""
    parts = affine(program, node)
    if parts is not None and len(parts) == 1:
        source, only = parts[0]
        return through(only, as_interval(values[source]), rounding)
    found = RULES.get(node.op)
    if found is None:
        raise unsupported(node)

    def value(index: int) -> Any:
        return program.constant(index, batch) if index in program.constants else values[index]

    args, kwargs = node.call(value, batch)
    return found(Context(program, node, rounding, batch), *args, **kwargs)


def through(linear: LinearMap, x: Interval, rounding: Rounding) -> Interval:
    """Map an interval through a linear map, rounding included.

    With u the unit roundoff, g = gamma(terms + 8) bounds what rounding does to the midpoint (of the
    interval and of the product), to the radius, to the bias and to the two last sums, relative to
    |W| (|center| + radius) + |bias|, and again what it does to the model's own evaluation at any
    point; one product with |W| takes them all along.
    """
    if linear.terms == 0:
        return replace(x.each(linear.apply), positive=x.positive and linear.bias is None)
    gamma = 2.1 * rounding.gamma(linear.terms + 8)
    if isinstance(linear, Rearrangement):
        return _added_up(linear, x, gamma, rounding.tiny)
    halved = linear.halved()
    if halved is not None and (linear.slack is None or linear.slack_share is not None):
        return _fast(linear, halved, x, gamma, rounding.tiny)
    center = x.center
    radius = x.radius
    if gamma:
        radius.mul_(1 + 2 * gamma).add_(center.abs(), alpha=gamma).add_(rounding.tiny)
    middle = linear.apply(center)
    spread = linear.apply_abs(radius, gamma)
    if linear.slack is not None:
        spread = spread + linear.slack.apply_abs(center.abs() + radius, 1.0) * (1 + 2 * gamma)
    return Interval(middle - spread, middle.add_(spread))


def _fast(
    linear: LinearMap,
    halved: Callable[[Tensor], Tensor],
    x: Interval,
    gamma: float,
    tiny: float,
) -> Interval:
    """The same with as few passes over x as it takes: constants go into the weights.

    With the radius r, the center c, and k the share of |W| that weights may move by, |W| takes
    `(1 + 2 gamma) r + gamma |c| + k (|c| + r)`. Where nothing is negative, |c| = c, and that is a
    multiple of the upper end less a smaller one of the lower.
    """
    k = (linear.slack_share or 0.0) * (1 + 2 * gamma)
    if x.positive:
        above, below = 0.5 + 1.5 * gamma + k, 0.5 + 0.5 * gamma
        reach, factor = x.gap(below / above), above
    else:
        reach, factor = x.gap(), 0.5 + gamma + k / 2
    total = x.lower.add_(x.upper) if x.spare else x.lower + x.upper
    if not x.positive and (gamma or k):
        reach = reach.add_(total.abs(), alpha=gamma + k / (2 * factor))
    middle = halved(total)
    spread = linear.spread_by(factor, gamma, 2 * tiny * linear.terms if gamma else 0.0)
    assert spread is not None
    wide = spread(reach)
    return Interval(middle - wide, middle.add_(wide))


def _added_up(linear: Rearrangement, x: Interval, gamma: float, tiny: float) -> Interval:
    """Sums and means end by end, so that what is not negative stays so."""
    if not gamma:
        return x.each(linear.apply)
    low = linear.apply(x.lower - x.lower.abs() * gamma)
    high = linear.apply(x.upper + x.upper.abs() * gamma)
    return Interval(
        torch.where(low > 0, (low - tiny).clamp_min(0), low - tiny),
        torch.where(high < 0, (high + tiny).clamp_max(0), high + tiny),
    )

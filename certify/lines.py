"""Lines below and above functions of one variable: the relaxations of the linear domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from certify.graph import Node
from certify.interval import Interval
from certify.linear import Lines

aten = torch.ops.aten

Maker = Callable[[Node, Interval], Lines]


@dataclass(frozen=True)
class Relaxation:
    """How a call is enclosed by lines.

    Attributes:
        lines: From the call and the interval of its input, valid in real numbers; slopes are
            rounded, and offsets rounded outwards by the maker.
        open: From the same, entries whose lines would be the better for a tighter interval.
    """

    lines: Maker
    open: Callable[[Node, Interval], Tensor]


LINES: dict[Any, Relaxation] = {}


def relu_lines(x: Interval, lower_slope: Tensor | None = None) -> Lines:
    """Lines of ReLU: the chord above; below, a line through 0 (CROWN: of slope 0 or 1).

    Args:
        x: Interval of the input.
        lower_slope: Slopes in [0, 1] below, where the neuron is unstable; None chooses the one of
            smaller area.
    """
    return hinge_lines(x, 0.0, lower_slope)


def hinge_lines(x: Interval, left: Tensor | float, free_slope: Tensor | None = None) -> Lines:
    """Lines of the function that is `left * x` for x < 0, and x else: leaky ReLU, PReLU, |x|.

    Where left <= 1 it is convex: the chord is above it, and any line through 0 of a slope between
    left and 1 below it. Where left > 1 the two change places.

    Args:
        x: Interval of the input.
        left: Slope on the left, broadcastable to x.
        free_slope: Slopes between left and 1 of the line through 0, where x changes its sign; None
            chooses the one of smaller area.
    """
    eps = torch.finfo(x.lower.dtype).eps
    left = torch.as_tensor(left, dtype=x.lower.dtype, device=x.lower.device)
    low, high = x.lower.clamp(max=0), x.upper.clamp(min=0)
    below_low = left * low
    rise = (high - below_low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    chord = torch.minimum(torch.maximum(rise, left.clamp(max=1)), left.clamp(min=1))
    active, unstable = x.lower >= 0, (x.lower < 0) & (x.upper > 0)
    none = torch.zeros_like(low)
    outer = torch.where(active, 1.0, left.expand_as(low))
    chosen = torch.where(x.upper > -x.lower, 1.0, left) if free_slope is None else free_slope
    # whatever `chord` was rounded to, this line is on its side at both ends
    ends = below_low - chord * low, high - chord * high
    size = torch.maximum(below_low.abs() + (chord * low).abs(), high)
    plain = bool(((left == 0) | (left.abs() == 1)).all())
    slack = torch.where(unstable, size * (4 * eps), none)
    over = torch.where(unstable, torch.maximum(*ends), none) + slack
    under = torch.where(unstable, torch.minimum(*ends), none) - slack
    error = none if plain else below_low.abs() * eps  # of the model's own product
    bad = x.lower.isnan() | x.upper.isnan()
    line = torch.where(unstable, chord, outer)
    free = torch.where(unstable, chosen, outer)
    line, free = (torch.where(bad, torch.nan, slope) for slope in (line, free))
    convex = left <= 1
    return Lines(
        torch.where(convex, free, line),
        torch.where(convex, none, under) - error,
        torch.where(convex, line, free),
        torch.where(convex, over, none) + error,
    )


def _relu(node: Node, x: Interval) -> Lines:
    return relu_lines(x)


def _leaky_relu(node: Node, x: Interval) -> Lines:
    left = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
    return hinge_lines(x, float(left))


def _abs(node: Node, x: Interval) -> Lines:
    return hinge_lines(x, -1.0)


def _crossing(node: Node, x: Interval) -> Tensor:
    return (x.lower < 0) & (x.upper > 0)


LINES[aten.relu.default] = Relaxation(_relu, _crossing)
LINES[aten.leaky_relu.default] = Relaxation(_leaky_relu, _crossing)
LINES[aten.abs.default] = Relaxation(_abs, _crossing)

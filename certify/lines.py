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
        open: Entries whose lines would be the better for a tighter interval.
    """

    lines: Maker
    open: Callable[[Interval], Tensor]


LINES: dict[Any, Relaxation] = {}


def relu_lines(x: Interval, lower_slope: Tensor | None = None) -> Lines:
    """Lines of ReLU: the chord above; below, a line through 0 (CROWN: of slope 0 or 1).

    Args:
        x: Interval of the input.
        lower_slope: Slopes in [0, 1] below, where the neuron is unstable; None chooses the one of
            smaller area.
    """
    low, high = x.lower.clamp(max=0), x.upper.clamp(min=0)
    chord = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    active, unstable = x.lower >= 0, (x.lower < 0) & (x.upper > 0)
    one, none = torch.ones_like(low), torch.zeros_like(low)
    above = torch.where(active, one, torch.where(unstable, chord, none))
    chosen = (x.upper > -x.lower).to(low.dtype) if lower_slope is None else lower_slope
    below = torch.where(active, one, torch.where(unstable, chosen, none))
    # whatever `chord` was rounded to, this line is above at both ends; 4u for its own rounding
    offset = torch.maximum(-chord * low, high - chord * high) * (1 + 4 * torch.finfo(low.dtype).eps)
    bad = x.lower.isnan() | x.upper.isnan()
    return Lines(
        torch.where(bad, torch.nan, below),
        none,
        torch.where(bad, torch.nan, above),
        torch.where(unstable, offset, none),
    )


def _relu(node: Node, x: Interval) -> Lines:
    return relu_lines(x)


def _crossing(x: Interval) -> Tensor:
    return (x.lower < 0) & (x.upper > 0)


LINES[aten.relu.default] = Relaxation(_relu, _crossing)

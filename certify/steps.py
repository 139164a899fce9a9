"""Calls of several inputs in the linear domain: what each kind needs, and where it is registered.

A call that has neither a map, nor lines, nor a step is cut: the linear domain goes on from its
interval, which is sound, and forgets how its value depends on the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from certify.graph import Node
from certify.interval import Interval, as_interval
from certify.linear import Rows, Step
from certify.program import Program
from certify.propagate import Value
from certify.rounding import Rounding


@dataclass(frozen=True, eq=False)
class Call:
    """What a step is made from.

    Attributes:
        program: The program.
        node: The call.
        values: Intervals of all nodes before it.
        rounding: What to allow for rounding.
    """

    program: Program
    node: Node
    values: Mapping[int, Value]
    rounding: Rounding

    @property
    def sources(self) -> tuple[int, ...]:
        """The inputs that are not constants, each once, in order."""
        return tuple(dict.fromkeys(i for i in self.node.inputs if i not in self.program.constants))

    def box(self, source: int) -> Interval:
        """The interval of an input."""
        return as_interval(self.values[source])

    def widened(self, lower: Tensor, upper: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Move offsets outwards by an error, and by what their sums along a row may round."""
        count = math.prod(self.node.shape) + 8
        size = torch.maximum(lower.abs(), upper.abs())
        slop = error * 1.1 + size * (4 * self.rounding.gamma(count)) + self.rounding.tiny
        return lower - slop, upper + slop


def everything(call: Call) -> dict[int, Tensor]:
    """Call all entries of all inputs open that are not points."""
    return {i: call.box(i).lower < call.box(i).upper for i in call.sources}


@dataclass(frozen=True)
class Stepping:
    """How steps of a kind of call are made.

    Attributes:
        make: The step, or None where the call has to be cut.
        open: Entries of each input with which a tighter interval would make a better step.
    """

    make: Callable[[Call], Step | None]
    open: Callable[[Call], dict[int, Tensor]] = everything


STEPS: dict[Any, Stepping] = {}


class Planes(Step):
    """Entry by entry, a plane below and one above.

    Inputs may be broadcast along dimensions where they have size 1.
    """

    def __init__(
        self,
        call: Call,
        sources: tuple[int, ...],
        below: tuple[Tensor, ...],
        above: tuple[Tensor, ...],
        offsets: tuple[Tensor, Tensor],
        error: Tensor,
    ) -> None:
        """Take slopes for each source, offsets that hold for them, and the call's own rounding."""
        self.sources, self.below, self.above = sources, below, above
        shapes = call.program.graph.nodes
        self.tails = [tuple(shapes[i].shape[1:]) for i in sources]
        for source, low, high in zip(sources, below, above, strict=True):
            steep = torch.maximum(low.abs(), high.abs())
            merged = math.prod(call.node.shape) // math.prod(shapes[source].shape)
            error = error + steep * call.box(source).magnitude * call.rounding.gamma(merged + 8)
        self.lower, self.upper = call.widened(*offsets, error)

    def back(self, row: Tensor, rows: Rows) -> list[tuple[int, Tensor]]:
        """See `Step`."""
        found = []
        for source, tail, below, above in zip(
            self.sources, self.tails, self.below, self.above, strict=True
        ):
            low, flat = rows.spread(below, row, False)
            if below is above:
                moved = (flat * low).view_as(row)
            else:
                high, _ = rows.spread(above, row, False)
                moved = torch.where(flat > 0, low, high).mul_(flat).view_as(row)
            dims = [d + 1 for d, n in enumerate(tail) if n == 1 and row.shape[d + 1] > 1]
            found.append((source, moved.sum(dims, keepdim=True) if dims else moved))
        return found


def aligned(call: Call) -> bool:
    """Whether all arguments are inputs with a row a sample, broadcast at most along ones."""
    shapes = [call.program.graph.nodes[i].shape for i in call.node.inputs]
    return (
        len(shapes) == 2
        and not any(i in call.program.constants for i in call.node.inputs)
        and all(len(s) == len(call.node.shape) and s[0] == call.node.shape[0] for s in shapes)
    )

"""The linear domain: lower bounds of linear functions of a node, by backward substitution.

A row of coefficients on a node's value is carried back to the input: through affine calls by the
transpose, through others by lines below and above them (CROWN, Zhang et al., NeurIPS 2018). A row
speaks of one sample. An upper bound is the lower bound of the negated row.

Rounding. The bounds hold for real numbers and for whatever float evaluation of the model gives:
each affine call has its rounding errors, at most `gamma (|W| |x| + |b|)`, which act as a
perturbation of its result and cost `|row| @ error` on the way back. The arithmetic of the rows
themselves (W^T row in floats) errs by no more than `gamma |row| |W|`, which costs as much again and
is charged with it. Scalars are added up in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certify.ball import InputSet
from certify.compact import Compact
from certify.graph import Node
from certify.interval import Interval, as_interval
from certify.maps import LinearMap, affine
from certify.program import Program
from certify.propagate import Value
from certify.rounding import Rounding
from certify.windows import Windows

Coefficients = Tensor | Compact

_FEW_ROWS = 256
"""Rows so few that to find those which are decided costs more than to carry them on."""


@dataclass(frozen=True, eq=False)
class Lines:
    """For each entry, a line below a function of one variable and one above it.

    Attributes:
        lower_slope: (n, *shape) or (n * rows, *shape), like the rest.
        lower_offset: Value of the lower line at 0.
        upper_slope: Slope of the upper line.
        upper_offset: Value of the upper line at 0.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """To which samples rows belong: in groups of equal size, each of one sample.

    Attributes:
        group: Sample of each group, int64, ascending.
        size: Rows of a group.
        every: Whether there is exactly one group for every sample.
    """

    group: Tensor
    size: int
    every: bool = False

    @classmethod
    def evenly(cls, samples: int, each: int, device: torch.device) -> Rows:
        """The same number for every sample."""
        return cls(torch.arange(samples, device=device), each, True)

    @property
    def owner(self) -> Tensor:
        """Sample of each row."""
        return self.group.repeat_interleave(self.size)

    def __len__(self) -> int:
        return len(self.group) * self.size

    def spread(self, values: Tensor, rows: Tensor, by_row: bool) -> tuple[Tensor, Tensor]:
        """Bring values and rows to shapes that broadcast: (groups, 1 or size, m).

        Args:
            values: By sample or by row.
            rows: Coefficients, (rows, *shape), samples' parts merged into the first or not.
            by_row: Which of the two.
        """
        flat = rows.reshape(len(self.group), self.size, -1)
        if by_row:
            return values.reshape(flat.shape), flat
        values = values.reshape(-1, flat.shape[2])
        return (values if self.every else values[self.group])[:, None], flat

    def each_row(self, values: Tensor, rows: Tensor) -> Tensor:
        """Bring what belongs to samples, (n * parts, ...), to rows, (rows * parts, ...)."""
        parts = len(rows) // len(self.owner)
        return values.reshape(-1, parts, *values.shape[1:])[self.owner].flatten(0, 1)


class Step(ABC):
    """A call between two functions linear in its inputs, of which there may be several.

    Attributes:
        lower: What to add to the linear function below, (n, *shape), all rounding taken off.
        upper: The same above.
    """

    lower: Tensor
    upper: Tensor

    @abstractmethod
    def back(self, row: Tensor, rows: Rows) -> list[tuple[int, Tensor]]:
        """Carry coefficients of the call's value back to its inputs, by node."""


@dataclass(eq=False)
class Analysis:
    """What is known about the nodes of a program over sets of inputs.

    Attributes:
        program: The program.
        inputs: The sets.
        values: An interval that holds each node's value, by node.
        lines: Lines for the calls that have any, by node.
        steps: Steps for the calls that have any, by node.
        errors: What rounding may add to an affine call's value, (n, *shape), by node.
        absorbed: Affine calls whose errors are already in the lines of all that use them.
        rounding: What to allow for rounding.
    """

    program: Program
    inputs: InputSet
    values: dict[int, Value]
    lines: dict[int, Lines] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    errors: dict[int, Tensor] = field(default_factory=dict)
    absorbed: set[int] = field(default_factory=set)
    rounding: Rounding = field(default_factory=lambda: Rounding.of(torch.float32))


def lower_bounds(
    known: Analysis,
    start: int,
    coefficients: Coefficients,
    rows: Rows,
    *,
    extra: Mapping[int, Tensor] | None = None,
    own: Mapping[int, Lines] | None = None,
    offset: Tensor | float = 0.0,
    drop: bool = False,
) -> Tensor:
    """Bound `coefficients @ value of start` from below.

    Args:
        known: Intervals and lines of all nodes before `start`.
        start: The node.
        coefficients: (rows, *shape of the node).
        rows: Their samples.
        extra: What to add to the coefficients of nodes when the pass reaches them, by row
            (multipliers of split constraints).
        own: Lines by row that replace those of `known`.
        offset: Added to the result, by row.
        drop: Give a group up as soon as one of its rows is proved positive, by intervals of the
            calls on the way: its bounds are valid, but not the best.

    Returns:
        float64, (rows,).
    """
    work = _Pass(known, rows, extra or {}, own or {}, drop)
    work.total = offset
    return work.run(start, coefficients)


class _Pass:
    """One backward pass."""

    def __init__(
        self,
        known: Analysis,
        rows: Rows,
        extra: Mapping[int, Tensor],
        own: Mapping[int, Lines],
        drop: bool,
    ) -> None:
        self.known, self.rows, self.extra = known, rows, extra
        self.lines, self.own = {**known.lines, **own}, own
        self.pending: dict[int, Coefficients] = {}
        self.total: Tensor | float = 0.0
        self.start = -1
        self.drop = drop
        self.dropped: list[tuple[Tensor, Tensor]] = []
        self.alive: Tensor | None = None

    def run(self, start: int, coefficients: Coefficients) -> Tensor:
        program = self.known.program
        self.pending[start] = coefficients
        self.start = start
        for node in reversed(program.nodes):
            if node.index <= start and node.index in self.pending:
                self._step(node, self.pending.pop(node.index))
        for index, left in self.pending.items():
            self._cut(index, left, exact=index == program.inputs["x"])
        assert isinstance(self.total, Tensor)
        return self._gathered(self.total)

    def _gathered(self, total: Tensor) -> Tensor:
        """The bounds of all rows, those given up on the way included."""
        if self.alive is None:
            return total
        whole = total.new_empty(
            sum(map(len, (self.alive, *(g for g, _ in self.dropped)))), self.rows.size
        )
        for group, found in (*self.dropped, (self.alive, total.view(-1, self.rows.size))):
            whole[group] = found
        return whole.flatten()

    def _without_decided(self, index: int, row: Coefficients) -> Coefficients:
        """Cut all rows at a call, and go on with groups of which none is positive there."""
        before = self.total
        self._cut(index, row, exact=False)
        assert isinstance(self.total, Tensor)
        found = self.total.view(-1, self.rows.size)
        self.total = before
        keep = ~(found > 0).any(1)
        if bool(keep.all()) or not bool(keep.any()):
            return row
        alive = self.alive
        if alive is None:
            alive = torch.arange(len(keep), device=keep.device)
        self.dropped.append((alive[~keep], found[~keep]))
        self.alive = alive[keep]
        if isinstance(before, Tensor):
            self.total = before.view(-1, self.rows.size)[keep].flatten()
        self.rows = Rows(self.rows.group[keep], self.rows.size)
        if isinstance(row, Windows):
            return row.some(keep)
        row = _dense(row)
        return row.view(len(keep), -1, *row.shape[1:])[keep].flatten(0, 1)

    def _step(self, node: Node, row: Coefficients) -> None:
        more = self.extra.get(node.index)
        if more is not None:
            row = row.plus(more) if isinstance(row, Compact) else row + more
            error = self.known.errors.get(node.index)
            if error is not None and node.index in self.known.absorbed:
                # lines took up the error for what comes through them, and not for a multiplier
                self._add_offsets(error.neg(), error, more)
        program = self.known.program
        parts = affine(program, node) if program.apart(node) else None
        if parts is not None:
            self._affine(node, parts, row)
        elif node.index in self.lines:
            self._relaxed(node, self.lines[node.index], row)
        elif node.index in self.known.steps:
            step, row = self.known.steps[node.index], _dense(row)
            self._add_offsets(step.lower, step.upper, row)
            for source, moved in step.back(row, self.rows):
                self._push(source, moved)
        else:
            self._cut(node.index, row, exact=False)

    def _affine(self, node: Node, parts: list[tuple[int, LinearMap]], row: Coefficients) -> None:
        known = self.known
        for _, linear in parts:
            if linear.bias is not None:
                self._add_bias(linear.bias, node, row)
        error = self.known.errors.get(node.index)
        if error is not None and (node.index == self.start or node.index not in known.absorbed):
            self._add_offsets(error.neg(), error, row)
        for source, linear in parts:
            if isinstance(row, Compact):
                moved: Coefficients | None = row.through(linear)
                if moved is None:
                    moved = linear.adjoint(row.dense())
            else:
                moved = linear.adjoint(row)
            self._push(source, moved)

    def _push(self, source: int, row: Coefficients) -> None:
        if source in self.known.program.constants:
            return
        if source in self.pending:
            row = _dense(row) + _dense(self.pending[source])
        self.pending[source] = row

    def _relaxed(self, node: Node, lines: Lines, row: Coefficients) -> None:
        further = self.drop and not self.pending and min(self.lines) < node.index
        if further and len(self.rows) > _FEW_ROWS:
            row = self._without_decided(node.index, row)
        own = node.index in self.own
        self._add_offsets(lines.lower_offset, lines.upper_offset, row, own)
        (source,) = (i for i in node.inputs if i not in self.known.program.constants)
        self._push(source, self._sloped(lines, row, own))

    def _sloped(self, lines: Lines, row: Coefficients, own: bool) -> Coefficients:
        if isinstance(row, Compact):
            return row.sloped(lines.lower_slope, lines.upper_slope, self.rows.group)
        lower, flat = self.rows.spread(lines.lower_slope, row, own)
        upper, _ = self.rows.spread(lines.upper_slope, row, own)
        if row.requires_grad or lower.requires_grad:
            return (flat.clamp(min=0) * lower + flat.clamp(max=0) * upper).view_as(row)
        return torch.where(flat > 0, lower, upper).mul_(flat).view_as(row)

    def _add_offsets(
        self, lower: Tensor, upper: Tensor, row: Coefficients, own: bool = False
    ) -> None:
        """Add the minimum of `row @ v` over lower <= v <= upper, entry by entry."""
        if isinstance(row, Compact):
            self._add(row.least(lower, upper, self.rows.group))
            return
        low, flat = self.rows.spread(lower, row, own)
        high, _ = self.rows.spread(upper, row, own)
        if own:
            found = (flat * low).sum(2) + (flat.clamp(max=0) * (high - low)).sum(2)
        else:
            found = flat @ low.mT + flat.clamp(max=0) @ (high - low).mT
        self._add(found.flatten())

    def _add_bias(self, bias: Tensor, node: Node, row: Coefficients) -> None:
        if isinstance(row, Compact):
            self._add(row.times(bias.expand(1, *node.shape[1:])))
            return
        merged = node.shape[0] // 2
        channels = (1, *node.shape[1:2], *(1,) * (len(node.shape) - 2))
        if merged == 1 and len(channels) > 2 and bias.shape == channels:  # sum entries first
            self._add(row.flatten(2).sum(2) @ bias.flatten())
            return
        flat = bias.expand(merged, *node.shape[1:]).reshape(-1)
        self._add(row.reshape(len(self.rows), -1) @ flat)

    def _cut(self, index: int, row: Coefficients, *, exact: bool) -> None:
        """Take the least value over a node's interval: of an input, or of a call without lines."""
        known = self.known
        box = as_interval(known.values[index])
        size = box.lower[0].numel()
        if known.rounding.unit:
            slop = box.magnitude * (3 * known.rounding.gamma(size + 4)) + known.rounding.tiny
            box = Interval(box.lower - slop, box.upper + slop)
        before = self.total
        self._add_offsets(box.lower, box.upper, row)
        if exact and known.inputs.center is not None:
            found = known.inputs.dual_bound(
                _dense(row).reshape(len(self.rows), -1), self.rows.owner
            )
            if found is not None:
                self.total = torch.maximum(self.total, before + found)  # type: ignore[arg-type]

    def _add(self, value: Tensor) -> None:
        self.total = self.total + value.double()


def _dense(row: Coefficients) -> Tensor:
    return row.dense() if isinstance(row, Compact) else row

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

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certify.ball import InputSet
from certify.graph import Node
from certify.interval import Interval, as_interval
from certify.maps import LinearMap, affine
from certify.program import Program
from certify.propagate import Value
from certify.rounding import Rounding
from certify.windows import Windows

Coefficients = Tensor | Windows


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
    """To which samples rows belong.

    Attributes:
        owner: Sample of each row, int64, ascending.
        each: Rows of every sample where all have as many, in order of samples; else 0.
    """

    owner: Tensor
    each: int = 0

    @classmethod
    def evenly(cls, samples: int, each: int, device: torch.device) -> Rows:
        """The same number for each sample."""
        return cls(torch.arange(samples, device=device).repeat_interleave(each), each)

    def spread(self, values: Tensor, rows: Tensor, by_row: bool) -> tuple[Tensor, Tensor]:
        """Bring values and rows to shapes that broadcast: (groups, 1, m) and (groups, k, m).

        Args:
            values: By sample or by row.
            rows: Coefficients, (rows, *shape), samples' parts merged into the first or not.
            by_row: Which of the two.
        """
        count = len(self.owner)
        flat = rows.reshape(count, -1)
        values = values.reshape(-1, flat.shape[1])
        if by_row:
            return values[:, None], flat[:, None]
        if self.each:
            return values[:, None], flat.view(len(values), self.each, -1)
        return values[self.owner][:, None], flat[:, None]


@dataclass(eq=False)
class Analysis:
    """What is known about the nodes of a program over sets of inputs.

    Attributes:
        program: The program.
        inputs: The sets.
        values: An interval that holds each node's value, by node.
        lines: Lines for the calls that have any, by node.
        errors: What rounding may add to an affine call's value, (n, *shape), by node.
        absorbed: Affine calls whose errors are already in the lines of all that use them.
        rounding: What to allow for rounding.
    """

    program: Program
    inputs: InputSet
    values: dict[int, Value]
    lines: dict[int, Lines] = field(default_factory=dict)
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

    Returns:
        float64, (rows,).
    """
    return _Pass(known, rows, extra or {}, own or {}).run(start, coefficients) + offset


class _Pass:
    """One backward pass."""

    def __init__(
        self,
        known: Analysis,
        rows: Rows,
        extra: Mapping[int, Tensor],
        own: Mapping[int, Lines],
    ) -> None:
        self.known, self.rows, self.extra = known, rows, extra
        self.lines, self.own = {**known.lines, **own}, own
        self.pending: dict[int, Coefficients] = {}
        self.total: Tensor | float = 0.0
        self.start = -1

    def run(self, start: int, coefficients: Coefficients) -> Tensor:
        program = self.known.program
        self.pending[start] = coefficients
        self.start = start
        for node in reversed(program.nodes):
            if node.index <= start and node.index in self.pending:
                self._step(node, self.pending.pop(node.index))
        for index, left in self.pending.items():
            self._cut(index, left, exact=True)
        assert isinstance(self.total, Tensor)
        return self.total

    def _step(self, node: Node, row: Coefficients) -> None:
        more = self.extra.get(node.index)
        if more is not None:
            row = _dense(row) + more
        parts = affine(self.known.program, node)
        if parts is not None:
            self._affine(node, parts, row)
        elif node.index in self.lines:
            self._relaxed(node, self.lines[node.index], row)
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
            if isinstance(row, Windows):
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
        own = node.index in self.own
        self._add_offsets(lines.lower_offset, lines.upper_offset, row, own)
        (source,) = (i for i in node.inputs if i not in self.known.program.constants)
        self._push(source, self._sloped(lines, row, own))

    def _sloped(self, lines: Lines, row: Coefficients, own: bool) -> Coefficients:
        if isinstance(row, Windows):
            lower, upper = row.gather([lines.lower_slope, lines.upper_slope], self.rows.owner)
            return row.like(torch.where(row.values > 0, lower, upper).mul_(row.values))
        lower, flat = self.rows.spread(lines.lower_slope, row, own)
        upper, _ = self.rows.spread(lines.upper_slope, row, own)
        if row.requires_grad or lower.requires_grad:
            return (flat.clamp(min=0) * lower + flat.clamp(max=0) * upper).view_as(row)
        return torch.where(flat > 0, lower, upper).mul_(flat).view_as(row)

    def _add_offsets(
        self, lower: Tensor, upper: Tensor, row: Coefficients, own: bool = False
    ) -> None:
        """Add the minimum of `row @ v` over lower <= v <= upper, entry by entry."""
        if isinstance(row, Windows):
            low, high = row.gather([lower, upper], self.rows.owner)
            least = torch.where(row.values > 0, low, high).mul_(row.values)
            self._add(least.flatten(1).sum(1))
            return
        low, flat = self.rows.spread(lower, row, own)
        high, _ = self.rows.spread(upper, row, own)
        found = flat @ low.mT + flat.clamp(max=0) @ (high - low).mT
        self._add(found.flatten())

    def _add_bias(self, bias: Tensor, node: Node, row: Coefficients) -> None:
        if isinstance(row, Windows):
            full = bias.expand(1, *node.shape[1:])
            (held,) = row.gather([full], torch.zeros_like(self.rows.owner))
            self._add((held * row.values).flatten(1).sum(1))
            return
        if bias.dim() > 2 and bias[0].numel() == bias.shape[1]:  # by channel: sum them first
            self._add(row.flatten(2).sum(2) @ bias.flatten())
            return
        merged = node.shape[0] // 2
        flat = bias.expand(1, *node.shape[1:]).reshape(-1).repeat(merged)
        self._add(row.reshape(len(self.rows.owner), -1) @ flat)

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
                _dense(row).reshape(len(self.rows.owner), -1), self.rows.owner
            )
            if found is not None:
                self.total = torch.maximum(self.total, before + found)  # type: ignore[arg-type]

    def _add(self, value: Tensor) -> None:
        self.total = self.total + value.double()


def _dense(row: Coefficients) -> Tensor:
    return row.dense() if isinstance(row, Windows) else row

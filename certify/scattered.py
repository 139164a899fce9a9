"""Coefficients at the same few places for all samples: bounds of neurons by products of patterns.

The row of a sparse matrix has few entries, and where they are is the same for every sample; so it
is after each further sparse matrix on the way back, with more of them. `Plan` finds the places once
for all neurons of a layer. Values, (entries, 2 n) for a row and its negative of n samples, then
pass a layer by one product with a fixed sparse matrix: what the layer's weights make of entries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks import memory
from certify.columns import Columns
from certify.compact import Compact
from certify.interval import Interval, as_interval
from certify.linear import Analysis, Rows, lower_bounds
from certify.maps import LinearMap, affine
from certify.program import Program
from certify.sparse_map import Pattern, SparseMatrix, starts

_MOST = 1 << 23
"""Products of one layer up to which a plan goes on; beyond, rows are written out in full."""
_TABLE = 1 << 26
"""Entries of a layer's rows in full up to which there may be a table of them: 320 MB."""
_BLOCK = 1 << 20
"""Coefficients at once: 4 MB in float32, as much as caches hold."""


@dataclass(frozen=True, eq=False)
class Level:
    """Places of coefficients at one node on the way back.

    Attributes:
        first: For each row, where its entries begin; int64 (rows + 1,).
        place: Entry of the node's flattened value that each is of, int64 (entries,).
        linear: The map that this level lies behind.
        product: Pattern of the matrix (entries, entries of the level before).
        weight: Its values.
    """

    first: Tensor
    place: Tensor
    linear: SparseMatrix
    product: Pattern
    weight: Tensor

    def take(self, rows: Tensor, before: Tensor, count: int) -> tuple[Level, Tensor]:
        """Of some rows, their entries and which ones they were.

        Args:
            rows: The rows, int64.
            before: Which entries of the level before are kept; `count` had been there.
            count: Entries of the level before.
        """
        kept, first = runs(self.first, rows)
        within, starting = runs(self.product.first, kept)
        renumbered = kept.new_zeros(count, dtype=torch.int32)
        renumbered[before] = torch.arange(len(before), device=kept.device, dtype=torch.int32)
        column = renumbered[self.product.column[within].long()]
        product = Pattern(starting.int(), column, (len(kept), len(before)))
        return Level(first, self.place[kept], self.linear, product, self.weight[within]), kept


def runs(first: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The members of chosen runs, given where all runs begin, and where theirs begin then."""
    counts = first.diff()[chosen].long()
    starting = starts(counts).long()
    shift = first[chosen].long() - starting[:-1]
    places = torch.arange(int(starting[-1]), device=first.device)
    return places + shift.repeat_interleave(counts), starting


@dataclass(frozen=True, eq=False)
class Plan:
    """The way back from the rows of a sparse matrix.

    Attributes:
        levels: At what the matrix takes (its rows; `product` is one column), and further back.
        width: Most coefficients of each row at any level; int64 (rows,).
    """

    levels: tuple[Level, ...]
    width: Tensor

    @classmethod
    def of(cls, program: Program, node: int) -> Plan | None:
        """Plan for a node; None if it is no sparse matrix of another call's value."""
        found = _layer(program, node)
        if found is None:
            return None
        source, linear = found
        pattern = linear.pattern
        one = torch.arange(len(linear.weight) + 1, device=linear.weight.device, dtype=torch.int32)
        column = Pattern(one, torch.zeros_like(pattern.column), (len(linear.weight), 1))
        levels = [Level(pattern.first.long(), pattern.column.long(), linear, column, linear.weight)]
        complete = False
        while not complete:
            source, linear_before = _before(program, source)
            if linear_before is None:
                complete = source == program.inputs["x"]
                break
            level = _next(levels[-1], linear_before)
            if level is None:
                break
            levels.append(level)
        width = torch.stack([level.first.diff() for level in levels]).amax(0)
        if not complete:  # written out in full from some layer on
            width = width.clamp(min=max(math.prod(n.shape) // 2 for n in program.nodes))
        return cls(tuple(levels), width.clamp(min=1))

    def take(self, rows: Tensor) -> Plan:
        """The plan for some of the rows."""
        levels: list[Level] = []
        before, count = rows.new_zeros(1), 1
        for level in self.levels:
            some, kept = level.take(rows, before, count)
            levels.append(some)
            before, count = kept, len(level.place)
        return Plan(tuple(levels), self.width[rows])


def _layer(program: Program, node: int) -> tuple[int, SparseMatrix] | None:
    """The sparse matrix whose value a node is, and what it takes."""
    call = program.graph.nodes[node]
    if call.op is None or not program.apart(call):
        return None
    parts = affine(program, call)
    if parts is None or len(parts) != 1 or not isinstance(parts[0][1], SparseMatrix):
        return None
    return parts[0][0], parts[0][1]


def _before(program: Program, node: int) -> tuple[int, SparseMatrix | None]:
    """Go back over functions of single entries to a sparse matrix, or as far as there are some."""
    while (call := program.graph.nodes[node]).op is not None and affine(program, call) is None:
        sources = [i for i in call.inputs if i not in program.constants]
        if len(sources) != 1 or program.shape(sources[0]) != program.shape(node):
            return node, None
        node = sources[0]
    found = _layer(program, node)
    return (node, None) if found is None else found


def _next(level: Level, linear: SparseMatrix) -> Level | None:
    """The places behind a further matrix; None where there would be too many products."""
    pattern, width = linear.pattern, linear.pattern.shape[1]
    counts = pattern.first.diff()[level.place]
    if int(counts.sum()) > _MOST:
        return None
    within, starting = runs(pattern.first, level.place)
    rows = len(level.first) - 1
    row = torch.arange(rows, device=within.device)
    key = row.repeat_interleave(starting[level.first].diff()) * width + pattern.column[within]
    if rows * width <= _TABLE:  # which is several times as fast as sorting
        taken = torch.zeros(rows * width, dtype=torch.bool, device=key.device)
        taken[key] = True
        entries = taken.nonzero()[:, 0]
        number = (taken.cumsum(0, dtype=torch.int32) - 1)[key]
    else:
        entries, number = torch.unique(key, return_inverse=True)
    by_old = Pattern(starting.int(), number.int(), (len(level.place), len(entries)))
    product, order = by_old.transposed
    first = starts(torch.bincount(entries // width, minlength=rows)).long()
    return Level(first, entries % width, linear, product, linear.weight[within][order])


@dataclass(frozen=True, eq=False)
class Scattered(Compact):
    """Rows with entries at the places of a plan; by sample, a row's negatives after its own.

    Attributes:
        plan: The plan.
        depth: Which of its levels they are at.
        values: (entries, 2 n).
        shape: Of the node's value.
    """

    plan: Plan
    depth: int
    values: Tensor
    shape: tuple[int, ...]

    @property
    def _level(self) -> Level:
        return self.plan.levels[self.depth]

    @property
    def _rows(self) -> int:
        return len(self._level.first) - 1

    @classmethod
    def of_rows(cls, plan: Plan, samples: int) -> Scattered:
        """The rows of the plan's matrix and their negatives, for each sample."""
        level = plan.levels[0]
        both = torch.stack([level.weight, -level.weight], 1)
        values = both.repeat_interleave(samples, 1)
        return cls(plan, 0, values, tuple(level.linear.shapes[0]))

    def _gathered(self, values: Tensor) -> Tensor:
        """By sample and entry of the node, to (entries, n)."""
        return values.flatten(1).T.contiguous().index_select(0, self._level.place)

    def _by_sign(self, lower: Tensor, upper: Tensor) -> Tensor:
        low, high = self._gathered(lower)[:, None], self._gathered(upper)[:, None]
        values = self.values.view(len(self.values), 2, self.values.shape[1] // 2)
        return torch.where(values > 0, low, high).mul_(values).flatten(1)

    def _summed(self, values: Tensor) -> Tensor:
        """Sums over the entries of each row, as rows are ordered: (2 n rows,)."""
        first = self._level.first.int()
        every = torch.arange(len(values), device=first.device, dtype=torch.int32)
        ones = Pattern(first, every, (self._rows, len(values))).matrix(values.new_ones(len(values)))
        return (ones @ values).view(self._rows, 2, -1).permute(2, 1, 0).flatten()

    def _full(self) -> Columns:
        count, size = self.values.shape[1] // 2, self._level.linear.pattern.shape[1]
        row = torch.arange(self._rows, device=self.values.device)
        row = row.repeat_interleave(self._level.first.diff())
        full = self.values.new_zeros(size, 2, self._rows, count)
        full[self._level.place, :, row] = self.values.view(-1, 2, count)
        return Columns(full.flatten(1), count, self.shape)

    def dense(self) -> Tensor:
        """See `Compact`."""
        return self._full().dense()

    def through(self, linear: LinearMap) -> Compact | None:
        """See `Compact`; in full from where the plan ends."""
        if self.depth + 1 == len(self.plan.levels):
            return self._full().through(linear)
        level = self.plan.levels[self.depth + 1]
        if level.linear is not linear:
            return None
        values = level.product.matrix(level.weight) @ self.values
        return Scattered(self.plan, self.depth + 1, values, tuple(level.linear.shapes[0]))

    def sloped(self, lower: Tensor, upper: Tensor, group: Tensor) -> Scattered:
        """See `Compact`; every sample has one group."""
        return replace(self, values=self._by_sign(lower, upper))

    def least(self, lower: Tensor, upper: Tensor, group: Tensor) -> Tensor:
        """See `Compact`; every sample has one group."""
        return self._summed(self._by_sign(lower, upper))

    def times(self, values: Tensor) -> Tensor:
        """See `Compact`."""
        return self._summed(self.values * self._gathered(values))


def tightened(known: Analysis, node: int, box: Interval, open_: Tensor) -> Interval | None:
    """Bound the open entries of a sparse matrix's value by the linear domain, and intersect.

    Entries that are open in some sample are bounded in all. None where there is no plan.
    """
    plan = known.program.derived(node, "plan", lambda: Plan.of(known.program, node))
    if plan is None:
        return None
    samples = len(known.inputs)
    lower = box.lower.reshape(samples, -1).clone()
    upper = box.upper.reshape(samples, -1).clone()
    wanted = open_.reshape(samples, -1)
    asked = wanted.any(0).nonzero()[:, 0]
    width = plan.width[asked]
    if known.inputs.center is not None:  # norms other than of boxes take rows in full
        width = width.clamp(min=known.inputs.box.lower[0].numel())
    block = (width.cumsum(0) * (2 * samples)) // memory.room(_BLOCK)
    for number in sorted(set(block.tolist())):
        places = asked[block == number]
        low, high = _both(known, node, plan.take(places), places)
        take = wanted[:, places]
        lower[:, places] = torch.where(take, torch.maximum(lower[:, places], low), lower[:, places])
        upper[:, places] = torch.where(
            take, torch.minimum(upper[:, places], high), upper[:, places]
        )
    return Interval(lower.view_as(box.lower), upper.view_as(box.upper))


def _both(known: Analysis, node: int, plan: Plan, places: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of entries, (n, entries), rounded outwards to the node's type."""
    samples = len(known.inputs)
    found = _layer(known.program, node)
    assert found is not None
    source, linear = found
    rows = Rows.evenly(samples, 2 * len(places), places.device)
    offset = torch.zeros(samples, 2, len(places), dtype=torch.float64, device=places.device)
    if linear.bias is not None:
        bias = linear.bias.flatten()[places].double()
        offset += torch.stack([bias, -bias])
    if (error := known.errors.get(node)) is not None:
        offset -= error.flatten(1)[:, places].double()[:, None]
    start = Scattered.of_rows(plan, samples)
    bounds = lower_bounds(known, source, start, rows, offset=offset.flatten())
    kind = as_interval(known.values[node]).lower.dtype
    bounds = bounds - bounds.abs() * torch.finfo(kind).eps
    low, high = bounds.to(kind).view(samples, 2, -1).unbind(1)
    return low, -high

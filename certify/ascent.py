"""Raising lower bounds: slopes, multipliers of splits, and the weights of rows, by gradients.

Every iterate is a sound bound of its own, rounding charged; the best one of each part is kept, and
the first is where the search starts from, so that the result is never worse than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certify.relus import Part

_DECAY = (0.9, 0.999)
_STALE = 0.7
"""Share of live parts below which those that are done are taken out of the batch."""


@dataclass(frozen=True, eq=False)
class Goal:
    """What is bounded: the largest of a few rows, by a weighted mean of them.

    For single rows the mean is the row. For more, `max_r row_r >= sum_r weight_r row_r` for
    weights that sum to 1, and in each linear region some weights attain the minimum of the left
    side.

    Attributes:
        start: The node that rows are of.
        rows: (p, R, *shape of the node), or (p, R, entries).
        offset: (p, R), added to the rows; -inf where a part has fewer than R rows.
        size: Largest absolute value of the node, (p, *shape), or None where R is 1.
    """

    start: int
    rows: Tensor
    offset: Tensor
    size: Tensor | None = None

    def take(self, parts: Tensor) -> Goal:
        """The goals of some of the parts."""
        size = None if self.size is None else self.size[parts]
        return Goal(self.start, self.rows[parts], self.offset[parts], size)

    def mean(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The rows' weighted mean (p, *shape), and what to add to its bound, float64 (p,).

        Args:
            weights: (p, R), of any sum; negative ones count as 0.
        """
        if self.size is None:
            return self.rows[:, 0], self.offset[:, 0].double()
        kept = torch.where(self.offset > -torch.inf, weights.clamp(min=0), 0.0)
        share = kept / kept.sum(1, keepdim=True)
        count = share.shape[1]
        flat = self.rows.flatten(2)
        row = (share[:, None] @ flat)[:, 0]
        offset = torch.where(share > 0, self.offset, 0.0)
        # of the sums over rows, and of shares that sum to 1 but for rounding
        size = (flat.abs() @ self.size.flatten(1)[:, :, None])[:, :, 0] + offset.abs()
        unit = torch.finfo(row.dtype).eps * 4 * (count + row.shape[1] + 8)
        slop = torch.where(share.amax(1) < 1, (share * size).sum(1) * unit, 0.0)
        total = (share.double() * offset.double()).sum(1)
        return row.view(-1, *self.rows.shape[2:]), total - slop.double()


@dataclass(frozen=True, eq=False)
class Point:
    """Where a bound was found, and what it was.

    Attributes:
        slopes: Lower slopes of unstable neurons, (p, U).
        multipliers: Of split constraints, (p, U).
        weights: Of rows, (p, R).
        lower: The bound, float64 (p,).
    """

    slopes: Tensor
    multipliers: Tensor
    weights: Tensor
    lower: Tensor

    @classmethod
    def stack(cls, points: Sequence[Point]) -> Point:
        """One batch of points."""
        slopes, multipliers, weights, lower = zip(*(p.values() for p in points), strict=True)
        return cls(torch.cat(slopes), torch.cat(multipliers), torch.cat(weights), torch.cat(lower))

    def take(self, parts: Tensor) -> Point:
        """The points of some of the parts."""
        return Point(*(value[parts] for value in self.values()))

    def put(self, parts: Tensor, other: Point) -> None:
        """Overwrite some of the parts, in place."""
        for mine, theirs in zip(self.values(), other.values(), strict=True):
            mine[parts] = theirs

    def better(self, other: Point) -> Point:
        """Part by part, the higher bound; NaN wins, so that it is seen."""
        wins = ~(other.lower <= self.lower)
        pairs = zip(self.values(), other.values(), strict=True)
        return Point(*(torch.where(wins.view(-1, *(1,) * (a.dim() - 1)), b, a) for a, b in pairs))

    def values(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All of it, in the order in which it is declared."""
        return self.slopes, self.multipliers, self.weights, self.lower


def evaluate(
    part: Part, goal: Goal, point: Point, shifts: Mapping[int, Tensor] | None = None
) -> Tensor:
    """The bound at a point, float64 (p,); `shifts` as in `Part.bound`."""
    row, offset = goal.mean(point.weights)
    return part.bound(goal.start, row, point.slopes, point.multipliers, shifts) + offset


def ascend(
    part: Part, goal: Goal, first: Point, steps: int, *, rate: float, target: float = 0.0
) -> Point:
    """Raise bounds by projected Adam (Kingma and Ba, ICLR 2015).

    Multipliers move in units of the row's coefficients. A part is left alone once its bound exceeds
    the target.

    Args:
        part: The parts.
        goal: What to bound.
        first: Where to start; its `lower` is not looked at.
        steps: Evaluations with a gradient; one more has none.
        rate: Step of slopes and weights, the first; it shrinks to a tenth.
        target: Bound from which on it does not matter how high it is.

    Returns:
        The best point of each part.
    """
    best = Point(*(v.clone() for v in first.values()))
    best.lower.fill_(-torch.inf)
    live = torch.arange(len(part), device=first.lower.device)
    here, held = first, best
    unit = goal.rows.flatten(1).abs().amax(1)[:, None].clamp(min=1e-12)
    moments: list[tuple[Tensor, Tensor]] = []
    for step in range(steps + 1):
        last = step == steps
        slopes, multipliers, weights = (
            value.detach().requires_grad_(not last)
            for value in (here.slopes, here.multipliers, here.weights)
        )
        with torch.set_grad_enabled(not last):
            here = Point(slopes, multipliers, weights, here.lower)
            lower = evaluate(part, goal, here)
            total = lower.sum()
        found = Point(*(v.detach() for v in (slopes, multipliers, weights, lower)))
        held = held.better(found)
        open_ = ~(held.lower > target)
        if last or not bool(open_.any()):
            break
        gradients = torch.autograd.grad(
            total, here.values()[:3], allow_unused=True, materialize_grads=True
        )
        if not moments:
            moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in here.values()[:3]]
        size = rate * 0.1 ** (step / max(1, steps - 1))
        moved = []
        for i, (value, gradient) in enumerate(zip(found.values()[:3], gradients, strict=True)):
            scale: Tensor | float = size * unit if i == 1 else size
            mean, square = moments[i]
            mean.lerp_(gradient, 1 - _DECAY[0])
            square.lerp_(gradient.square(), 1 - _DECAY[1])
            first_moment = mean / (1 - _DECAY[0] ** (step + 1))
            deviation = (square / (1 - _DECAY[1] ** (step + 1))).sqrt_() + 1e-12
            value = value + scale * first_moment / deviation
            moved.append(value.clamp(0, 1 if i == 0 else None))
        here = Point(moved[0], moved[1], moved[2], found.lower)
        if int(open_.sum()) < _STALE * len(live):
            best.put(live, held)
            keep = open_.nonzero()[:, 0]
            live, held, here = live[keep], held.take(keep), here.take(keep)
            part, goal, unit = part.take(keep), goal.take(keep), unit[keep]
            moments = [(mean[keep], square[keep]) for mean, square in moments]
    best.put(live, held)
    return best

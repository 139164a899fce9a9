"""Lines around any function of one variable whose convex and concave pieces are known.

The best line above, in area, touches the concave envelope at the middle m of the interval. Its
slope is searched for in floating point; what makes the line valid is its offset, for whatever slope
came out. The offset is the maximum of g(x) = f(x) - slope x over the interval, bounded piece by
piece: on a convex or straight piece by its ends; on a concave piece [p, q] by the tangent of g at
any t in it, g(t) + max(g'(t) (p - t), g'(t) (q - t), 0), which holds wherever t is and loses little
where g'(t) is about 0. All of that is float64 and charged for its own rounding; a knot that is off
by an ulp costs of second order in an ulp. A line below is minus a line above -f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certify.interval import Interval
from certify.linear import Lines
from certify.rounding import FUNCTION_ULPS

_ROUNDS = 6
"""Newton steps on the slope; each tries a chord of two points of contact."""
_SEARCH, _SETTLE = 18, 34
"""Halvings for a point of contact, while slopes are tried and for the offset."""
_WIDEST = 1e6
"""Width from which on a constant above and below has to do."""
_SLACK = 2.0**-46
"""What float64 may be off by, relative to all that is summed."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A function of one variable.

    Attributes:
        value: The function, on float64.
        slope: Its derivative; at a knot that ends a bent piece, that piece's own.
        knots: Where curvature changes its sign or the derivative jumps, ascending.
        bends: Of the pieces between knots: 1 convex, -1 concave, 0 straight; one more than knots.
        turns: Other points where the function may have a minimum or a maximum.
        start: Left end of its domain.
        relative_to_x: Whether a float evaluation errs by ulps of |x| rather than of |f(x)|.
        error: What torch's function is off by on top of that.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    knots: tuple[float, ...]
    bends: tuple[int, ...]
    turns: tuple[float, ...] = ()
    start: float = -torch.inf
    relative_to_x: bool = False
    error: float = 0.0

    def range(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest value over intervals, up to `_SLACK`."""
        points = [low, high] + [(low * 0 + t).clamp(low, high) for t in self.knots + self.turns]
        values = [self.value(point) for point in points]
        return torch.stack(values).amin(0), torch.stack(values).amax(0)


def enclose(curve: Curve, x: Interval) -> Lines:
    """Return lines below and above a curve over each interval.

    Where an interval is too wide, not finite, or slopes are not, the lines are constants; where it
    leaves the domain or is not a number, so are they.
    """
    kind, info = x.lower.dtype, torch.finfo(x.lower.dtype)
    low, high = x.lower.double().flatten(), x.upper.double().flatten()
    least, most = curve.range(low, high)
    outside = ~(low >= curve.start)
    least = torch.where(outside, -torch.inf, least).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    most = torch.where(outside, torch.inf, most).nan_to_num(torch.inf, torch.inf, -torch.inf)
    above, over = _above(curve, 1, low, high, kind)
    below, under = _above(curve, -1, low, high, kind)
    size = torch.maximum(least.abs(), most.abs())
    reach = torch.maximum(low.abs(), high.abs())
    error = size + reach if curve.relative_to_x else size
    error = error * (FUNCTION_ULPS * info.eps + _SLACK) + info.tiny * 2**20 + curve.error
    found = []
    for slope, offset, constant in ((above, over, most), (below, under, -least)):
        flat = ~(slope.isfinite() & offset.isfinite())
        offset = torch.where(flat, constant, offset + (1 + slope.abs()) * reach * _SLACK) + error
        rounded = (offset + offset.abs() * info.eps).to(kind).clamp(min=info.min)
        found.append((torch.where(flat, 0, slope).to(kind).view_as(x.lower), rounded))
    bad = (x.lower.isnan() | x.upper.isnan()).view_as(x.lower)
    (above, over), (below, under) = found
    return Lines(
        torch.where(bad, torch.nan, -below),
        -under.view_as(bad),
        torch.where(bad, torch.nan, above),
        over.view_as(bad),
    )


def _above(
    curve: Curve, sign: int, low: Tensor, high: Tensor, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Slopes (rounded to `kind`) and offsets of lines above `sign * f`; not finite: no line."""
    knots = torch.tensor(curve.knots, dtype=low.dtype, device=low.device)
    bends = torch.tensor(curve.bends, dtype=low.dtype, device=low.device) * sign
    first = torch.bucketize(low, knots, right=True)
    mixed = first < torch.bucketize(high, knots)
    middle, width = low + (high - low) / 2, high - low
    concave = bends[first] < 0
    ends = sign * curve.value(low), sign * curve.value(high)
    narrow = width <= 1e-7 * (1 + middle.abs())
    slope = torch.where(
        concave | narrow, sign * curve.slope(middle), (ends[1] - ends[0]) / width.clamp(min=1e-300)
    )
    usable = (width < _WIDEST) & (low >= curve.start)
    (index,) = (mixed & usable).nonzero(as_tuple=True)
    piece = _Mixed(curve, sign, low[index], high[index])
    slope[index] = torch.where(narrow[index], slope[index], piece.best())
    slope = slope.to(kind).double()
    offset = torch.maximum(ends[0] - slope * low, ends[1] - slope * high)
    tilt = sign * curve.slope(middle) - slope
    touched = sign * curve.value(middle) - slope * middle + tilt.abs() * width / 2
    offset = torch.where(concave, torch.maximum(offset, touched), offset)
    offset[index] = piece.highest(slope[index], _SETTLE, safe=True)[0]
    return slope, torch.where(usable, offset, torch.nan)


class _Mixed:
    """Intervals over several pieces of `sign * f`."""

    def __init__(self, curve: Curve, sign: int, low: Tensor, high: Tensor) -> None:
        self.curve, self.sign, self.low, self.high = curve, sign, low, high
        knots = [(low * 0 + knot).clamp(low, high) for knot in curve.knots]
        self.ends = [low, *knots, high]
        self.levels = [self._value(end) for end in self.ends]
        bends = zip(self.ends, self.ends[1:], curve.bends, strict=False)
        self.concave = [(left, right) for left, right, bend in bends if bend * sign < 0]

    def _value(self, x: Tensor) -> Tensor:
        return self.sign * self.curve.value(x)

    def _slope(self, x: Tensor) -> Tensor:
        return self.sign * self.curve.slope(x)

    def highest(self, slope: Tensor, halvings: int, *, safe: bool) -> tuple[Tensor, Tensor]:
        """Maximum of `sign * f(x) - slope x` (from above, where safe), and a point of it."""
        best, place = self.levels[0] - slope * self.low, self.low
        points = list(zip(self.ends, self.levels, strict=True))[1:]
        found = [(x, level - slope * x) for x, level in points]
        for left, right in self.concave:
            p, q = left, right
            for _ in range(halvings):
                middle = (p + q) / 2
                rising = self._slope(middle) > slope
                p, q = torch.where(rising, middle, p), torch.where(rising, q, middle)
            t = (p + q) / 2
            level = self._value(t) - slope * t
            if safe:
                tilt = self._slope(t) - slope
                level = level + torch.maximum(tilt * (left - t), tilt * (right - t)).clamp(min=0)
            found.append((t, level))
        for x, level in found:
            place = torch.where(level > best, x, place)
            best = torch.maximum(best, level)
        return best, place

    def best(self) -> Tensor:
        """Slopes of lines above of (about) the least area: the least height at the middle."""
        middle = (self.low + self.high) / 2
        p, q = self.low, self.high
        start = self._slope(middle)
        height, _ = self.highest(start, _SEARCH, safe=False)
        height, best = height + start * middle, start
        slope = start
        for _ in range(_ROUNDS):
            gap = q - p
            rise = (self._value(q) - self._value(p)) / gap.clamp(min=1e-300)
            slope = torch.where(gap > 1e-7 * (self.high - self.low), rise, slope)
            top, place = self.highest(slope, _SEARCH, safe=False)
            better = ~(top + slope * middle >= height)
            height = torch.where(better, top + slope * middle, height)
            best = torch.where(better, slope, best)
            p, q = torch.where(place <= middle, place, p), torch.where(place > middle, place, q)
        return best

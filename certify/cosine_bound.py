"""The smallest cosine similarity of a vector and any vector of a box, from below.

Where every w of the box has v w > 0, the smallest cosine is at a corner, of which there are too
many to try. For every a >= 0, with L(a) the least value of `v w - a |w|^2` over the box (at one of
both ends, entry by entry), `v w >= L + a |w|^2 >= 2 sqrt(a L) |w|`. The best a is found by
bisection: log(a L) is concave. This is never less than P / R, with P the smallest product and R the
largest norm, for a = P / (2 R^2) gives that much already.

Where v w can be negative, the question is how near -v comes to the cone of the box. The nearest
point y of the cone lies in t times the box for some t >= 0, and the distance of -v to that box is
convex in t. For every y, `-v w <= |y| |w| + (-v - y) w`, and the last product over the box is at
most 0 for the nearest y: this bound is the exact cosine.

Both hold for every a and t: bisection and rounding can make them weak, not wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor

from certify.interval import Interval

_HALVINGS = 30
_SMALLEST = 1e-150
"""Norm, in parts of the box's largest entry, below which squares may have been lost."""


def cosine_slack(entries: int) -> float:
    """Most by which a cosine in float64 of vectors of so many entries may be off.

    Products, sums and norms of n terms are off by (n + 2) 2^-53 of the norms' product each,
    divisions by a few units: 4 (n + 16) 2^-53 is more than all of them and of those made here.
    """
    return (entries + 16) * 2.0**-51


def least_cosine(v: Tensor, box: Interval) -> Tensor:
    """Bound the cosine similarity of v with every vector of a box from below.

    The similarity is 0 where one of both is zero.

    Args:
        v: float64 (n, entries), finite.
        box: float64 (n, entries), finite.

    Returns:
        float64 (n,), in [-1, 1]: no more than the cosine in real numbers, nor than
        `attacks.explanation_measures.cosine` gives by more than `cosine_slack`.
    """
    zero = (v == 0).all(1)
    scale = box.magnitude.amax(1, keepdim=True).clamp_min(1e-300)
    v = v / v.abs().amax(1, keepdim=True).clamp_min(1e-300)
    box = box.each(lambda end: end / scale)
    found = _ahead(v, box)
    back = ~(found > 0)
    found[back] = -_behind(-v[back], Interval(box.lower[back], box.upper[back]))
    found = found / v.norm(dim=1).clamp_min(1e-300)
    return torch.where(zero, 0.0, (found - cosine_slack(v.shape[1])).clamp(-1, 1))


def _ahead(v: Tensor, box: Interval) -> Tensor:
    """`2 sqrt(a L(a))` for the best a; -Inf where L is never positive."""
    middle = box.center
    high = (v * middle).sum(1) / (middle * middle).sum(1).clamp_min(_SMALLEST**2)
    low, high = torch.zeros_like(high), high.clamp(0, 1 / _SMALLEST)
    for _ in range(_HALVINGS):
        a = (low + high) / 2
        least, square = _least(v, box, a)
        rises = least > a * square
        low, high = torch.where(rises, a, low), torch.where(rises, high, a)
    least, _ = _least(v, box, low)
    size = v.abs() * box.magnitude + low[:, None] * box.magnitude**2
    least = least - (v.shape[1] + 8) * 2.0**-52 * size.sum(1)
    found = 2 * (low * least.clamp_min(0)).sqrt()
    return torch.where((least > 0) & (low > 0), found, -torch.inf)


def _least(v: Tensor, box: Interval, a: Tensor) -> tuple[Tensor, Tensor]:
    """The least of `v w - a |w|^2`, and |w|^2 there: minus its slope."""
    a = a[:, None]
    lower, upper = ((v - a * end) * end for end in (box.lower, box.upper))
    end = torch.where(lower < upper, box.lower, box.upper)
    return torch.minimum(lower, upper).sum(1), (end * end).sum(1)


def _behind(v: Tensor, box: Interval) -> Tensor:
    """Most that `v w / |w|` is over the box, or 0 where that is negative."""
    open_ = torch.where(v > 0, box.upper > 0, box.lower < 0)
    by_signs = torch.where(open_, v, 0.0).norm(dim=1)
    nearest = torch.maximum(box.lower, -box.upper).clamp_min(0).norm(dim=1)
    low = torch.zeros_like(nearest)
    high = v.norm(dim=1) / nearest.clamp_min(_SMALLEST)
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        rest = v - _within(v, box, t)
        ends = torch.where(rest > 0, box.upper, box.lower)
        short = (rest * ends).sum(1) > 0  # a larger box is nearer to v
        low, high = torch.where(short, t, low), torch.where(short, high, t)
    rest = v - _within(v, box, high)  # once more: t for the entries that are now at an end
    ends = torch.where(rest > 0, box.upper, box.lower) * (rest != 0)
    t = (v * ends).sum(1) / (ends * ends).sum(1).clamp_min(_SMALLEST**2)
    y = _within(v, box, t.clamp(low, high))
    rest = v - y
    most = torch.maximum(rest * box.lower, rest * box.upper).sum(1)
    most = most + (v.shape[1] + 8) * 2.0**-52 * (rest.abs() * box.magnitude).sum(1)
    found = y.norm(dim=1) + most.clamp_min(0) / nearest.clamp_min(_SMALLEST)
    return torch.where(nearest > _SMALLEST, torch.minimum(found, by_signs), by_signs)


def _within(v: Tensor, box: Interval, t: Tensor) -> Tensor:
    """The nearest point of t times the box."""
    return torch.minimum(torch.maximum(v, t[:, None] * box.lower), t[:, None] * box.upper)

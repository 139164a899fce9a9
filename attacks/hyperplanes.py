"""Exact nearest points of (hyperplane intersected with box), in Linf, L2 and L1.

All in float64, vectorised over samples, by one sort (Croce and Hein, ICML 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.offsets import TINY
from attacks.threat import AnyNorm


def onto_hyperplane(
    norm: AnyNorm, slope: Tensor, rise: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Shortest `z` with `slope . z = rise` and `low <= z <= high`.

    Each feature gains `|slope|` per unit up to its cap, the end of its range on the side of the
    slope, so the shortest `z` fills a knapsack: for L1 the steepest features first; for Linf and
    L2 all features at once, `min(t, cap)` and `min(t |slope|, cap)`, with the `t` that fits.

    Args:
        norm: What is short.
        slope: (n, d).
        rise: (n, 1).
        low: (n, d), <= 0.
        high: (n, d), >= 0.

    Returns:
        (n, d); the corner of the box nearest to the hyperplane where the two do not meet.
    """
    slope = torch.where(rise < 0, -slope, slope)
    rise = rise.abs()
    steep = slope.abs()
    cap = torch.where(slope > 0, high, -low) * (slope != 0)
    filled = _fill_one_by_one(steep, rise, cap) if norm == "l1" else _fill(norm, steep, rise, cap)
    return filled * slope.sign()


def _fill_one_by_one(steep: Tensor, rise: Tensor, cap: Tensor) -> Tensor:
    steepest, order = steep.sort(dim=1, descending=True, stable=True)
    room = cap.gather(1, order)
    gain = (steepest * room).cumsum(1)
    before = torch.cat([torch.zeros_like(rise), gain[:, :-1]], 1)
    needed = (rise - before).clamp_min(0.0) / steepest.clamp_min(TINY)
    return torch.zeros_like(cap).scatter(1, order, torch.minimum(needed, room))


def _fill(norm: AnyNorm, steep: Tensor, rise: Tensor, cap: Tensor) -> Tensor:
    speed = torch.ones_like(steep) if norm == "linf" else steep
    # each feature is full at its own t; sorted by it, those behind an index still gain there
    full, order = (cap / speed.clamp_min(TINY)).sort(dim=1, stable=True)
    done = (steep * cap).gather(1, order).cumsum(1)
    pace = (steep * speed).gather(1, order)
    behind = pace.flip(1).cumsum(1).flip(1)
    before = torch.cat([torch.zeros_like(rise), done[:, :-1]], 1)
    index = ((before + full * behind) < rise).sum(1, keepdim=True)
    last = index.clamp_max(steep.shape[1] - 1)
    t = (rise - before.gather(1, last)) / behind.gather(1, last).clamp_min(TINY)
    t = torch.where(index == steep.shape[1], torch.inf, t.clamp_min(0.0))
    return torch.where(cap > 0, torch.minimum(t * speed, cap), 0.0)

"""What an attack on an explanation raises: for each measure a function that has a gradient.

The measures themselves (`attacks.explanation_measures`) say what counts; counting has no gradient,
and a maximum has one for a single entry only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.explanation_measures import Criterion, largest_entries

_POWER = 8
"""Stands for infinity in the Linf norm."""


def bend(criterion: Criterion, clean: Tensor, now: Tensor) -> Tensor:
    """Larger where the measure is, or is about to be.

    Args:
        criterion: The measure.
        clean: Explanations to get away from, (n, *shape).
        now: Explanations at the moved points, like `clean`.

    Returns:
        (n,); in units of its own.
    """
    v, w = clean.detach().flatten(1), now.flatten(1)
    if criterion.measure == "cosine":
        return -_unit(v).mul(_unit(w)).sum(1)
    if criterion.k is not None:
        return _ranked(criterion, v, w)
    gap = (w - v).abs()
    if criterion.measure == "l2":
        return gap.square().sum(1)
    if criterion.measure == "linf":
        top = gap.detach().amax(1, keepdim=True).clamp_min(torch.finfo(gap.dtype).tiny)
        return (gap / top).pow(_POWER).sum(1)
    return gap.sum(1)


def _unit(v: Tensor) -> Tensor:
    unit: Tensor = v / v.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return unit


def _ranked(criterion: Criterion, v: Tensor, w: Tensor) -> Tensor:
    """How far chosen entries are above or below the bar of the k largest.

    u / (1 + |u|) of the distance u to the bar: entries near it weigh most, and none nothing.
    """
    k = criterion.k or 1
    rank = w if criterion.signed else w.abs()
    bar = rank.topk(min(k + 1, rank.shape[1]), dim=1).values[:, -2:].mean(1, keepdim=True)
    away = rank - bar
    away = away / away.detach().abs().mean(1, keepdim=True).clamp_min(1e-30)
    score = away / (1 + away.abs())
    if criterion.measure == "top-k":
        return -(score * largest_entries(v, k, criterion.signed)).sum(1)
    chosen = score[:, list(criterion.features)].sum(1)
    return chosen if criterion.measure == "into-top-k" else -chosen

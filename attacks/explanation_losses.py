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


def mass_centre(explanation: Tensor) -> Tensor:
    """Centre of mass of the absolute values (Ghorbani et al., AAAI 2019).

    Args:
        explanation: (n, *shape): of images, (channels, height, width) or (height, width), the last
            two dimensions are places; of rows, the last one is.

    Returns:
        (n, 2) or (n, 1), in pixels.
    """
    v = explanation.abs()
    dims = min(2, v.dim() - 1)
    total = v.flatten(1).sum(1).clamp_min(1e-30)
    centre = []
    for dim in range(v.dim() - dims, v.dim()):
        other = [d for d in range(1, v.dim()) if d != dim]
        along = v.sum(other) if other else v
        places = torch.arange(v.shape[dim], dtype=v.dtype, device=v.device)
        centre.append((along * places).sum(1) / total)
    return torch.stack(centre, 1)


def likeness(toward: Tensor, now: Tensor) -> Tensor:
    """Minus the mean squared error between maps, each divided by its mean absolute value.

    Args:
        toward: Maps to come near to, (n, *shape).
        now: Explanations, like `toward`.

    Returns:
        (n,), <= 0.
    """
    v, w = (
        u / u.abs().mean(1, keepdim=True).clamp_min(1e-30)
        for u in (toward.flatten(1), now.flatten(1))
    )
    found: Tensor = -(v - w).square().mean(1)
    return found


def changed(clean: Tensor, now: Tensor) -> Tensor:
    """Mean squared change of logits (n, classes) in parts of their variance, (n,)."""
    spread = clean.detach().var(1).clamp_min(1e-30)
    found: Tensor = (now - clean.detach()).square().mean(1) / spread
    return found


def centre_moved(clean: Tensor, now: Tensor) -> Tensor:
    """Squared distance between the centres of mass, (n,)."""
    return (mass_centre(now) - mass_centre(clean.detach())).square().sum(1)


def flips(clean: list[Tensor], now: list[Tensor]) -> Tensor:
    """Larger the more ReLUs are, or are about to be, on another side than before.

    Args:
        clean: What enters each ReLU at the clean samples, each (n, ...).
        now: The same at the moved points.

    Returns:
        A scalar, the sum over samples.
    """
    total = now[0].new_zeros(())
    for before, after in zip(clean, now, strict=True):
        z = (-before.sign() * after).flatten(1)
        z = z / before.flatten(1).abs().mean(1, keepdim=True).clamp_min(1e-30)
        total = total + (4 * z / (1 + (4 * z).abs())).sum()
    return total

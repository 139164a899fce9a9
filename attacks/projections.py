"""Exact Euclidean projections onto (norm ball around 0) intersected with (box containing 0).

All in float64 and vectorised over samples; `low <= 0 <= high` bound the perturbation itself. The
intersection is projected onto as such: clipping after projecting onto the ball alone, as is often
done, is not the nearest point and stalls where the box is active.
"""

from __future__ import annotations

import torch
from torch import Tensor

Radius = float | Tensor
"""For all rows, or for each, (n, 1)."""


def project_linf(v: Tensor, low: Tensor, high: Tensor, eps: Radius) -> Tensor:
    """Nearest point with `|z| <= eps` and `low <= z <= high`; all (n, d)."""
    size = torch.as_tensor(eps, dtype=v.dtype, device=v.device)
    return v.clamp(-size, size).clamp(low, high)


def project_l2(v: Tensor, low: Tensor, high: Tensor, eps: Radius) -> Tensor:
    """Nearest point with `||z||_2 <= eps` and `low <= z <= high`; all (n, d).

    The solution is `clip(t v, low, high)` with the largest `t` in (0, 1] that fits. Started from
    no clipped coordinate, `t` only grows and so does the clipped set: it ends after finitely many
    rounds, in practice a handful.
    """
    z = v.clamp(low, high)
    if bool((z.norm(dim=1, keepdim=True) <= eps).all()):
        return z
    cap = torch.where(v > 0, high, -low)
    size = v.abs()
    capped = torch.zeros_like(size, dtype=torch.bool)
    while True:
        left = eps**2 - torch.where(capped, cap**2, 0.0).sum(1, keepdim=True)
        free = torch.where(capped, 0.0, size**2).sum(1, keepdim=True)
        t = (left.clamp_min(0.0) / free.clamp_min(1e-300)).sqrt().clamp_max(1.0)
        grown = capped | (t * size > cap)
        if torch.equal(grown, capped):
            break
        capped = grown
    return torch.where(z.norm(dim=1, keepdim=True) <= eps, z, (t * v).clamp(low, high))


def project_l1(v: Tensor, low: Tensor, high: Tensor, eps: Radius) -> Tensor:
    """Nearest point with `||z||_1 <= eps` and `low <= z <= high`; all (n, d).

    The solution is `sign(v) min(max(|v| - s, 0), cap)` with the smallest `s >= 0` that fits. Its
    L1 norm is piecewise linear in `s` with breakpoints `|v|` (leaves zero) and `|v| - cap` (leaves
    the cap): sorted once, the segment is found by a cumulative sum.
    """
    z = v.clamp(low, high)
    cap = torch.where(v > 0, high, -low)
    size = v.abs()
    # walking s down from infinity: at |v| the slope grows by one, at |v| - cap it falls by one
    points, order = torch.cat([size, size - cap], 1).sort(dim=1, descending=True)
    change = torch.ones_like(points)
    change[:, v.shape[1] :] = -1.0
    slope = change.gather(1, order).cumsum(1)
    gaps = points[:, :-1] - points[:, 1:]
    norm = torch.cat([torch.zeros_like(points[:, :1]), (slope[:, :-1] * gaps).cumsum(1)], 1)
    # the last breakpoint whose norm is still within eps, and from there down its segment
    index = ((norm <= eps).sum(1, keepdim=True) - 1).clamp_min(0)
    at = points.gather(1, index)
    rise = slope.gather(1, index).clamp_min(1.0)
    s = (at - (eps - norm.gather(1, index)) / rise).clamp_min(0.0)
    shrunk = torch.sign(v) * torch.minimum((size - s).clamp_min(0.0), cap)
    # size - s cancels where |v| is far beyond eps: what is left of its rounding goes here
    total = shrunk.abs().sum(1, keepdim=True).clamp_min(1e-300)
    shrunk = shrunk * (eps / total).clamp_max(1.0)
    return torch.where(z.abs().sum(1, keepdim=True) <= eps, z, shrunk)


def project_l0(v: Tensor, low: Tensor, high: Tensor, eps: Radius) -> Tensor:
    """Nearest point with at most `eps` entries that are not 0 and `low <= z <= high`; all (n, d).

    Those are kept that come nearest by being kept, of equals the first.
    """
    z = v.clamp(low, high)
    gain = v**2 - (v - z) ** 2
    order = gain.argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(v.shape[1], device=v.device).expand_as(order)
    kept = torch.zeros_like(order).scatter(1, order, rank) < torch.as_tensor(eps).floor()
    return torch.where(kept, z, 0.0)


PROJECTIONS = {"linf": project_linf, "l2": project_l2, "l1": project_l1, "l0": project_l0}

"""The set of inputs of a proof: a norm ball, intersected with a box, rounded outwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.threat import Norm, ThreatModel
from certify.errors import CertifyError
from certify.interval import Interval


@dataclass(frozen=True, eq=False)
class InputSet:
    """A set of inputs for each of n samples.

    Attributes:
        box: The box around it, (n, *shape); for "linf" that is all.
        center: Center of the norm ball, (n, *shape); for "l2" and "l1".
        norm: Norm of the ball.
        eps: Its radius, rounded up, in units of `scale`.
        scale: Length of a unit of `eps` per feature, or None for 1.
    """

    box: Interval
    norm: Norm = "linf"
    center: Tensor | None = None
    eps: float = 0.0
    scale: Tensor | None = None

    @classmethod
    def around(cls, x: Tensor, threat: ThreatModel) -> InputSet:
        """What an attacker may choose instead of each of the samples (n, *shape).

        Computed in float64 and rounded outwards: no legal input, real or float, is left out.

        Raises:
            CertifyError: The norm is l0.
        """
        if threat.norm == "l0":
            raise CertifyError("no proof is about l0: use linf, l2 or l1")
        exact = x.double()
        radius = torch.as_tensor(threat.eps, dtype=torch.float64, device=x.device)
        if threat.scale is not None:
            radius = radius * threat.scale.double()
        reach = radius * (1 + 2**-50)
        low = torch.maximum(exact - reach, threat.lower.double())
        high = torch.minimum(exact + reach, threat.upper.double())
        lower, upper = _down(low, x.dtype), _down(-high, x.dtype).neg()
        if threat.immutable is not None:
            lower = torch.where(threat.immutable, x, lower)
            upper = torch.where(threat.immutable, x, upper)
        box = Interval(lower, upper)
        if threat.norm == "linf":
            return cls(box)
        return cls(box, threat.norm, x, threat.eps * (1 + 2**-50), threat.scale)

    def __len__(self) -> int:
        return len(self.box.lower)

    def __getitem__(self, index: Tensor) -> InputSet:
        """The sets of some of the samples."""
        box = Interval(self.box.lower[index], self.box.upper[index])
        center = None if self.center is None else self.center[index]
        return InputSet(box, self.norm, center, self.eps, self.scale)

    def dual_bound(self, rows: Tensor, owner: Tensor) -> Tensor | None:
        """Lower bounds of `rows @ x` over the ball, box included; None where the box is all.

        With d = x - center, every multiplier m >= 0 of the norm constraint gives a bound: the
        minimum over the box of `a d + m (|d / scale|^p - eps^p)`, entry by entry in closed form.
        The best one is found by sorting; whatever it was rounded to, the bound holds.

        Args:
            rows: (rows, features).
            owner: Sample of each row, int64.
        """
        if self.center is None:
            return None
        a = rows.double()
        center = self.center.flatten(1).double()[owner]
        low = self.box.lower.flatten(1).double()[owner] - center
        high = self.box.upper.flatten(1).double()[owner] - center
        if self.scale is not None:
            unit = self.scale.double().flatten()
            a, low, high = a * unit, low / unit, high / unit
        # d has no gradient, nor has m of "l2": at the best of both the bound does not change with
        # them. m of "l1" has: it is the slope of the feature for which the budget is not enough
        slopes = a.detach()
        reach = torch.where(slopes > 0, -low, high).clamp(min=0).abs()  # no -0
        if self.norm == "l2":
            budget, m = self.eps**2, _multiplier_l2(slopes, reach, self.eps)
            d = (-slopes / (2 * m).clamp(min=1e-300)[:, None]).clamp(low, high)
        else:
            budget, m = self.eps, _multiplier_l1(a, reach, self.eps)
            steep = slopes.abs() > m[:, None]
            d = torch.where(steep, -slopes.sign() * torch.inf, 0.0).clamp(low, high)
        used = (d**2 if self.norm == "l2" else d.abs()).sum(1)
        best = (a * d).sum(1) + m * (used - budget)
        # float64 sums of n terms, each off by a few units of 2^-53
        slop = 1e-15 * (a.shape[1] + 16)
        size = (rows.double().abs() * center.abs()).sum(1) + (a.abs() * (high - low)).sum(1)
        size = size + m * (used + budget)
        return best + (rows.double() * center).sum(1) - slop * size


def _multiplier_l1(a: Tensor, reach: Tensor, eps: float) -> Tensor:
    """The slope of the first feature, steepest first, at which the budget is spent; else 0."""
    steep, order = a.abs().sort(dim=1, descending=True)
    spent = reach.gather(1, order).cumsum(1) >= eps
    first = spent.to(torch.uint8).argmax(1, keepdim=True)
    return torch.where(spent[:, -1], steep.gather(1, first)[:, 0], 0.0)


def _multiplier_l2(a: Tensor, reach: Tensor, eps: float) -> Tensor:
    """The root of `sum min(|a| / 2m, reach)^2 = eps^2`, or 0 where reaches are within eps.

    Features meet the box in the order of |a| / reach: with the first k at the box the root is in
    closed form, and it is the one with which feature k + 1 stays inside.
    """
    meets = (a.abs() / (2 * reach)).nan_to_num(0.0, torch.inf)
    meets, order = meets.sort(dim=1, descending=True)
    square = (a * a).gather(1, order)
    rest = square.flip(1).cumsum(1).flip(1)
    left = eps**2 - ((reach**2).gather(1, order).cumsum(1) - (reach**2).gather(1, order))
    m = torch.where(left > 0, (rest / (4 * left).clamp(min=1e-300)).sqrt(), torch.inf)
    fits = m >= meets
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    found = torch.where(fits.any(1), m.gather(1, first)[:, 0], 0.0)
    return torch.where(found.isfinite() & ((reach**2).sum(1) > eps**2), found, 0.0)


def _down(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 towards minus infinity."""
    near = value.to(dtype)
    below = torch.nextafter(near, torch.full_like(near, -torch.inf))
    return torch.where(near.double() > value, below, near)

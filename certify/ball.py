"""The set of inputs of a proof: a norm ball, intersected with a box, rounded outwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.threat import Norm, ThreatModel
from certify.interval import Interval

_MULTIPLIERS = 12
"""Evaluations of the dual of a norm constraint; each alone is a valid bound."""


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
        """
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
        power = 2 if self.norm == "l2" else 1
        budget = self.eps**power
        top = a.abs().amax(1) if power == 1 else a.norm(dim=1) / max(2 * self.eps, 1e-300)
        left, right = torch.zeros_like(top), top
        best = rows.new_full((len(a),), -torch.inf, dtype=torch.float64)
        for step in range(_MULTIPLIERS):
            m = right if step == 0 else (left + right) / 2
            if power == 2:
                d = (-a / (2 * m).clamp(min=1e-300)[:, None]).clamp(low, high)
            else:
                d = torch.where(a.abs() > m[:, None], -a.sign() * torch.inf, 0.0).clamp(low, high)
            size = d.abs() ** power
            value = (a * d).sum(1) + m * (size.sum(1) - budget)
            best = torch.maximum(best, value)
            inside = size.sum(1) <= budget
            left, right = torch.where(inside, left, m), torch.where(inside, m, right)
        # float64 sums of n terms, each off by a few units of 2^-53
        slop = 1e-15 * (a.shape[1] + 16)
        size = (rows.double().abs() * center.abs()).sum(1) + (a.abs() * (high - low)).sum(1)
        return best + (rows.double() * center).sum(1) - slop * size


def _down(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float64 towards minus infinity."""
    near = value.to(dtype)
    below = torch.nextafter(near, torch.full_like(near, -torch.inf))
    return torch.where(near.double() > value, below, near)

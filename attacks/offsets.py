"""Perturbations of a tile of samples as rows of float64 in units of eps, for searches that stray.

A search for the nearest adversarial example has no ball to stay in, only the box. Here a sample is
the origin, a unit is `threat.scale`, and an immutable feature is one whose range has no width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.threat import AnyNorm, ThreatModel

TINY = 1e-300
_ORDER = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}
_DUAL = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}


def length(norm: AnyNorm, rows: Tensor) -> Tensor:
    """Norm of each row, (n, d) to (n, 1)."""
    found: Tensor = torch.linalg.vector_norm(rows, _ORDER[norm], dim=1, keepdim=True)
    return found


def dual_length(norm: AnyNorm, rows: Tensor) -> Tensor:
    """Dual norm of each row, (n, d) to (n, 1): what a gain of 1 per unit of `norm` costs."""
    found: Tensor = torch.linalg.vector_norm(rows, _DUAL[norm], dim=1, keepdim=True)
    return found


@dataclass(eq=False)
class Offsets:
    """The box as each sample sees it.

    Attributes:
        threat: The threat model (tensors on the device of `x`).
        x: Clean samples, float32, (n, *shape).
        low: Most that a feature may fall, in units of eps, float64, (n, d), <= 0.
        high: Most that it may rise, likewise, >= 0.
    """

    threat: ThreatModel
    x: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, threat: ThreatModel, x: Tensor) -> Offsets:
        """The offsets from each sample of `x`, which is inside the box."""
        frame = cls(threat, x, x, x)
        frame.low = frame.of(threat.lower.expand_as(x))
        frame.high = frame.of(threat.upper.expand_as(x))
        if threat.immutable is not None:
            free = (~threat.immutable).flatten().double()
            frame.low, frame.high = frame.low * free, frame.high * free
        return frame

    def _unit(self) -> Tensor | float:
        return 1.0 if self.threat.scale is None else self.threat.scale.double()

    def of(self, points: Tensor) -> Tensor:
        """Offsets of inputs, (n, *shape) to (n, d)."""
        return ((points.double() - self.x.double()) / self._unit()).flatten(1)

    def slope(self, gradient: Tensor) -> Tensor:
        """Gradient with respect to the offset, of that with respect to the input; NaN becomes 0."""
        return (gradient.double().nan_to_num(0.0, 0.0, 0.0) * self._unit()).flatten(1)

    def farthest(self) -> Tensor:
        """Distance of the farthest corner of the box, (n, 1)."""
        return length(self.threat.norm, torch.maximum(self.high, -self.low))

    def place(self, offsets: Tensor) -> Tensor:
        """The inputs at some offsets, rounded to float32 and inside the box to the last bit."""
        moved = self.x.double() + offsets.view(self.x.shape) * self._unit()
        legal = torch.minimum(torch.maximum(moved.float(), self.threat.lower), self.threat.upper)
        held = self.threat.immutable
        return legal if held is None else torch.where(held, self.x, legal)

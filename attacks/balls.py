"""The moves of a gradient attack inside a threat model: random start and step, per norm.

`Ball.step` and `Ball.start` return inputs that are inside the threat model to the last bit: norm
and box hold when they are measured in float64 on the float32 input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.errors import AttackError
from attacks.projections import PROJECTIONS
from attacks.randomness import gaussian, uniform
from attacks.rows import wide
from attacks.threat import ThreatModel

_INSIDE = 1.0 - 1e-12  # what float64 rounding of a projection may add to its norm


@dataclass(eq=False)
class Ball:
    """The legal inputs around each of a batch of samples.

    Attributes:
        threat: The threat model (tensors on the device of `x`).
        x: Clean samples, (n, *shape).
        low: Smallest legal value of each feature, float32, like `x`.
        high: Largest legal value of each feature, float32, like `x`.
    """

    threat: ThreatModel
    x: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, threat: ThreatModel, x: Tensor) -> Ball:
        """The ball around each sample of `x`."""
        return cls(threat, x, *threat.bounds(x))

    def select(self, rows: Tensor) -> Ball:
        """The balls of some rows."""
        return Ball(self.threat, self.x[rows], self.low[rows], self.high[rows])

    def replace(self, rows: Tensor, other: Ball, count: int) -> None:
        """Overwrite `rows` by the first `count` balls of `other`, in place."""
        for mine, theirs in ((self.x, other.x), (self.low, other.low), (self.high, other.high)):
            mine[rows] = theirs[:count]

    def _unit(self) -> Tensor | float:
        return 1.0 if self.threat.scale is None else self.threat.scale.double()

    def _place(self, perturbation: Tensor, radius: Tensor | None = None) -> Tensor:
        """Project a perturbation (float64, in units of eps) and add it to `x`, rounding to `x`."""
        eps = self.threat.eps if radius is None else radius.view(-1, 1)
        unit, exact = self._unit(), self.x.double()
        low = ((self.low.double() - exact) / unit).flatten(1)
        high = ((self.high.double() - exact) / unit).flatten(1)
        eps = eps if self.threat.norm == "l0" else eps * _INSIDE
        inside = PROJECTIONS[self.threat.norm](perturbation.flatten(1), low, high, eps)
        wanted = inside.view_as(exact) * unit
        moved = (exact + wanted).float()
        too_far = (moved.double() - exact).abs() > wanted.abs()
        moved = torch.where(too_far, torch.nextafter(moved, self.x), moved)
        return torch.minimum(torch.maximum(moved, self.low), self.high)

    def project(self, points: Tensor, radius: Tensor | None = None) -> Tensor:
        """The nearest legal inputs; the points themselves where they are legal.

        Args:
            points: Any inputs, float32 or float64, like `x`.
            radius: Not for Linf: a radius for each sample, at most eps, float64, (n,); None: eps.
        """
        if self.threat.norm == "linf":
            return torch.minimum(torch.maximum(points.float(), self.low), self.high)
        return self._place((points.double() - self.x.double()) / self._unit(), radius)

    def shrink(self, points: Tensor) -> Tensor:
        """For L2: onto the ball along the line to the sample, then to the nearest in the box.

        As AutoAttack does it: where the box is in the way, what is found lies within the ball.
        """
        offset = (points.double() - self.x.double()) / self._unit()
        length = torch.linalg.vector_norm(offset.flatten(1), dim=1).clamp_min(1e-300)
        return self._place(offset * wide((self.threat.eps / length).clamp_max(1.0), offset))

    def whole_step(self, current: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """For L2: a step of length `size` along all of the gradient, then `shrink`; see `step`."""
        pull = gradient.double().nan_to_num(0.0, 0.0, 0.0) * self._unit() * (self.low < self.high)
        length = torch.linalg.vector_norm(pull.flatten(1), dim=1).clamp_min(1e-300)
        return self.shrink(current.double() + wide(size / length, pull) * pull * self._unit())

    def _not_for_l0(self) -> None:
        if self.threat.norm == "l0":
            raise AttackError("a ball of l0 has no random starts and steps: use sigma-zero")

    def _lengths(self, size: float | Tensor) -> float | Tensor:
        """A length for each sample, in a form that is multiplied by inputs."""
        return wide(size, self.x) if isinstance(size, Tensor) else size

    def _ahead(self, current: Tensor, direction: Tensor, size: float | Tensor) -> Tensor:
        """`current + size * direction` in units of eps, inside the bounds (float32: Linf only)."""
        if self.threat.scale is not None:
            direction = direction * self.threat.scale
        # not add(alpha=size), which is fused, and rounds otherwise, except in a loop's tail
        return (direction * size).add_(current).clamp_(self.low, self.high)

    def start(self, keys: Tensor) -> Tensor:
        """A random legal input for each sample: uniform in the norm ball, then projected.

        Args:
            keys: int64, (n,), one stream of random numbers for each sample.
        """
        self._not_for_l0()
        eps, d = self.threat.eps, self.x[0].numel()
        if self.threat.norm == "linf":
            noise = (2.0 * uniform(keys, d) - 1.0).view_as(self.x)
            return self._ahead(self.x, noise, eps)
        if self.threat.norm == "l2":
            # the largest of d uniforms is distributed as the radius of a uniform point of a ball
            direction = gaussian(keys, d, offset=d).double()
            radius = uniform(keys, d).double().amax(1, keepdim=True)
            length = direction.norm(dim=1, keepdim=True).clamp_min(1e-300)  # 0 happens where d is 1
            noise = eps * radius * direction / length
        else:
            # spacings of d sorted uniforms: a uniform point of the simplex with its interior
            points = uniform(keys, d).double().sort(1).values
            spacings = torch.diff(points, dim=1, prepend=torch.zeros_like(points[:, :1]))
            signs = 2.0 * (uniform(keys, d, offset=d) < 0.5).double() - 1.0
            noise = eps * spacings * signs
        return self._place(noise.view_as(self.x))

    def outermost(self, keys: Tensor) -> Tensor:
        """A random input at distance eps (nearer where the box is in the way), for each sample.

        Linf: of noise that is uniform in the cube, the largest entry is scaled to eps; L2: uniform
        on the sphere; L1: as `start`.

        Args:
            keys: int64, (n,), one stream of random numbers for each sample.
        """
        self._not_for_l0()
        eps, d = self.threat.eps, self.x[0].numel()
        if self.threat.norm == "l1":
            return self.start(keys)
        linf = self.threat.norm == "linf"
        noise = 2.0 * uniform(keys, d).double() - 1.0 if linf else gaussian(keys, d).double()
        order = torch.inf if linf else 2
        length = torch.linalg.vector_norm(noise, order, dim=1, keepdim=True).clamp_min(1e-300)
        noise = (eps * noise / length).view_as(self.x)
        if linf:
            return self.project(self.x.double() + noise * self._unit())
        return self._place(noise)

    def step(self, current: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """One ascent step of length `size` (in the attack's norm), projected back.

        Linf moves along the sign of the gradient; L2 along the gradient; L1 along the largest
        components of the gradient (the top 1%, at least one, as in SLIDE: Tramer and Boneh 2019).
        For L2 and L1 the length is that of the features which can still move that way. Those at a
        limit are pushed along, or the projection would take them off it again at every step.

        Args:
            current: Legal inputs, like `x`.
            gradient: Gradient of the loss to raise, like `x`.
            size: Length of the step in units of eps, for all or for each sample, (n,).
        """
        self._not_for_l0()
        size = self._lengths(size)
        if self.threat.norm == "linf":
            return self._ahead(current, gradient.sign(), size)  # the sign of NaN is 0
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        free = torch.where(gradient > 0, current < self.high, current > self.low).flatten(1)
        unit = self._unit()
        direction = (gradient.double() * unit).flatten(1)
        order = 2
        if self.threat.norm == "l1":
            order, k = 1, max(1, direction.shape[1] // 100)
            least = (direction.abs() * free).topk(k, dim=1).values[:, -1:]
            direction = torch.where(direction.abs() >= least, direction.sign(), 0.0)
        length = torch.linalg.vector_norm(direction * free, order, dim=1, keepdim=True)
        direction = torch.where(length > 0, direction / length, 0.0)
        offset = (current.double() - self.x.double()) / unit
        return self._place(offset + size * direction.view_as(offset))

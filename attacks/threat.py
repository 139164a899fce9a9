"""What the attacker may do to an input: a norm ball, intersected with the box of legal inputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.errors import AttackError

Norm = Literal["linf", "l2", "l1"]
"""What proofs, records, training and most attacks are about."""
NORMS: tuple[Norm, ...] = get_args(Norm)
AnyNorm = Literal["linf", "l2", "l1", "l0"]
"""With "l0", for attacks that are made for it."""


def feature_ranges(lower: Tensor, upper: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`upper - lower` for each feature: a `scale` that makes eps a fraction of a feature's range.

    A feature of no range gets 1: its box does not let it move anyway.
    """
    span = (upper - lower).expand(shape)
    return torch.where(span > 0, span, 1.0)


@dataclass(frozen=True, eq=False)
class ThreatModel:
    """The set of inputs an attacker may choose instead of `x`.

    `{x' : norm((x' - x) / scale) <= eps, lower <= x' <= upper, x' = x where immutable}`.

    Attributes:
        norm: "linf", "l2" or "l1", over all features of a sample; or "l0", the number of features
            that differ (of an image: entries, so that a pixel of three channels counts up to 3).
        eps: Radius in the units of the input (of `scale` where one is given), finite, >= 0.
        lower: Lower end of the input box, a scalar or of the shape of a sample.
        upper: Upper end of the input box, likewise.
        immutable: True where a feature may not change (shape of a sample), or None.
        scale: Length of one unit of `eps` per feature (shape of a sample, > 0), or None for 1.
            Tabular features of different units need it: with `scale = upper - lower`, an eps of
            0.1 is a tenth of each feature's range.
    """

    norm: AnyNorm
    eps: float
    lower: Tensor
    upper: Tensor
    immutable: Tensor | None = None
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        if self.norm not in get_args(AnyNorm):
            known = ", ".join(get_args(AnyNorm))
            raise AttackError(f"unknown norm '{self.norm}': use one of {known}")
        if not 0 <= self.eps <= torch.finfo(torch.float32).max:
            raise AttackError(
                f"eps is {self.eps}: it must be finite and not negative, and at most 3e38"
            )
        if not (torch.isfinite(self.lower).all() and torch.isfinite(self.upper).all()):
            raise AttackError("the input box is not finite: give finite lower and upper ends")
        if bool((self.lower > self.upper).any()):
            raise AttackError("the input box is empty: a lower end exceeds its upper end")
        if self.immutable is not None and self.immutable.dtype != torch.bool:
            raise AttackError(f"immutable has dtype {self.immutable.dtype}: it must be bool")
        if self.scale is not None and not bool(
            (torch.isfinite(self.scale) & (self.scale > 0)).all()
        ):
            raise AttackError("scale must be finite and positive for every feature")

    @classmethod
    def box(
        cls,
        norm: AnyNorm,
        eps: float,
        lower: float | Tensor = 0.0,
        upper: float | Tensor = 1.0,
        immutable: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> ThreatModel:
        """Make a threat model from numbers or tensors; the box is [0, 1] unless given."""
        return cls(
            norm,
            float(eps),
            torch.as_tensor(lower, dtype=torch.float32),
            torch.as_tensor(upper, dtype=torch.float32),
            immutable,
            scale,
        )

    def to(self, device: torch.device | str) -> ThreatModel:
        """Return the same threat model with its tensors on `device`."""
        return replace(
            self,
            lower=self.lower.to(device),
            upper=self.upper.to(device),
            immutable=None if self.immutable is None else self.immutable.to(device),
            scale=None if self.scale is None else self.scale.to(device),
        )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise unless box, mask and scale fit samples of `shape`."""
        for name in ("lower", "upper", "immutable", "scale"):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and tensor.dim() > 0 and tuple(tensor.shape) != shape:
                raise AttackError(
                    f"{name} has shape {tuple(tensor.shape)}, but a sample has shape {shape}"
                )

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest legal value of each feature, rounded inward.

        Computed in float64 and rounded to float32 towards `x`, so that a clamped input exceeds
        neither eps nor the box by even one bit. (For L2, L1 and L0 this is the enclosing box: of
        L0 all of the box, where eps lets a feature change.)

        Args:
            x: Samples, float32, (n, *shape), inside the box.

        Returns:
            `(low, high)`, float32, of the shape of `x`, with `low <= x <= high`.
        """
        exact = x.double()
        radius: float | Tensor = self.eps
        if self.norm == "l0":
            radius = torch.inf if self.eps >= 1 else 0.0
        elif self.scale is not None:
            # rounded down: measured in units of `scale`, it may be eps and one bit otherwise
            unit = self.scale.double()
            radius = torch.nextafter(self.eps * unit, torch.zeros_like(unit))
        low = torch.maximum(exact - radius, self.lower.double())
        high = torch.minimum(exact + radius, self.upper.double())
        low32, high32 = low.float(), high.float()
        # exact - radius is itself rounded: measured against x again, in float64, it may not exceed
        up = (low32.double() < low) | (exact - low32.double() > radius)
        down = (high32.double() > high) | (high32.double() - exact > radius)
        low32 = torch.where(up, torch.nextafter(low32, x), low32)
        high32 = torch.where(down, torch.nextafter(high32, x), high32)
        if self.immutable is not None:
            low32 = torch.where(self.immutable, x, low32)
            high32 = torch.where(self.immutable, x, high32)
        return torch.minimum(low32, x), torch.maximum(high32, x)

    def sha256(self) -> str:
        """Hash of everything that defines the set: norm, eps, box, mask and scale."""
        digest = hashlib.sha256(f"{self.norm}|{self.eps!r}".encode())
        for tensor in (self.lower, self.upper, self.immutable, self.scale):
            if tensor is None:
                digest.update(b"|none")
            else:
                array = tensor.detach().cpu().contiguous()
                digest.update(f"|{array.dtype}{tuple(array.shape)}".encode())
                digest.update(array.numpy().tobytes())
        return digest.hexdigest()


def diameter(threat: ThreatModel, shape: tuple[int, ...]) -> float:
    """Return the radius from which on the ball around any point holds the whole box."""
    sides = (threat.upper.double() - threat.lower.double()).expand(shape)
    if threat.scale is not None:
        sides = sides / threat.scale.double()
    if threat.immutable is not None:
        sides = torch.where(threat.immutable, 0.0, sides)
    order = {"linf": torch.inf, "l2": 2, "l1": 1, "l0": 0}[threat.norm]
    return float(torch.linalg.vector_norm(sides.flatten(), ord=order))


@dataclass(frozen=True)
class WeightBudget:
    """The set of models an attacker may choose instead of the given one.

    Every parameter may move by `gamma` times its own size, or by `gamma`; buffers (running
    statistics) stay.

    Attributes:
        gamma: Radius, finite, >= 0.
        relative: Whether it is a share of each parameter's absolute value.
    """

    gamma: float
    relative: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= torch.finfo(torch.float32).max:
            raise AttackError(f"gamma is {self.gamma}: it must be finite and not negative")

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest legal value of a parameter, rounded inward; see `ThreatModel`."""
        exact = weight.detach().double()
        radius = self.gamma * exact.abs() if self.relative else torch.full_like(exact, self.gamma)
        low, high = (exact - radius).to(weight.dtype), (exact + radius).to(weight.dtype)
        low = torch.where(exact - low.double() > radius, torch.nextafter(low, weight), low)
        high = torch.where(high.double() - exact > radius, torch.nextafter(high, weight), high)
        return torch.minimum(low, weight), torch.maximum(high, weight)

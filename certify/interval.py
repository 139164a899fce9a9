"""Intervals of tensors, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Interval:
    """All tensors between two ends.

    Attributes:
        lower: Lower ends.
        upper: Upper ends, of the same shape, dtype and device; `lower <= upper`, or NaN.
        positive: Whether no entry is known to be negative (the result of a ReLU).
        spare: Whether the ends' memory may be written over: nobody else holds or needs it.
    """

    lower: Tensor
    upper: Tensor
    positive: bool = False
    spare: bool = False

    @classmethod
    def point(cls, value: Tensor) -> Interval:
        """The interval of one tensor."""
        return cls(value, value)

    @property
    def center(self) -> Tensor:
        """Midpoint, rounded: wrong by a unit of itself and of the radius at most."""
        return torch.lerp(self.lower, self.upper, 0.5)

    @property
    def radius(self) -> Tensor:
        """Half the width, rounded."""
        return self.gap().mul_(0.5)

    def gap(self, share: float = 1.0) -> Tensor:
        """The upper end less a share of the lower one: the width for a share of 1."""
        return torch.sub(self.upper, self.lower, alpha=share)

    @property
    def magnitude(self) -> Tensor:
        """Largest absolute value."""
        if self.positive:
            return self.upper
        return torch.maximum(-self.lower, self.upper)

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensors."""
        return self.lower.shape

    def each(self, function: Callable[[Tensor], Tensor]) -> Interval:
        """Apply an increasing function that does not round to both ends."""
        return Interval(function(self.lower), function(self.upper))

    def widened(self, relative: float, absolute: float) -> Interval:
        """Move both ends outwards by a share of their size and by an absolute amount."""
        return Interval(
            self.lower - (self.lower.abs() * relative + absolute),
            self.upper + (self.upper.abs() * relative + absolute),
        )

    def __and__(self, other: Interval) -> Interval:
        """The intersection; NaN in either stays."""
        return Interval(
            torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper)
        )


def some_samples(values: Tensor, index: Tensor | slice, samples: int) -> Tensor:
    """Choose samples of a tensor that holds n of them one after the other, with n or more rows."""
    if len(values) == samples:
        return values[index]
    return values.reshape(samples, -1, *values.shape[1:])[index].flatten(0, 1)


def as_interval(value: Tensor | Interval) -> Interval:
    """A tensor as an interval; an interval as it is."""
    return value if isinstance(value, Interval) else Interval.point(value)

"""Adversarial training: craft a point near each sample, then a loss there (Madry et al., 2018)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.balls import Ball
from attacks.errors import AttackError
from attacks.objectives import worst
from attacks.threat import Norm, ThreatModel


def check_not_negative(**settings: float) -> None:
    """Raise unless each setting is finite and at least 0.

    Raises:
        AttackError: The first that is not, by name.
    """
    for name, value in settings.items():
        if not 0 <= value < float("inf"):
            raise AttackError(f"{name} is {value}: it must be finite and not negative")


@dataclass(kw_only=True, eq=False)
class Adversarial(ABC):
    """An objective in two parts, so that others can use the same points for several losses.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: Radius in the units of the input.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.
    """

    norm: Norm
    eps: float
    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        self.threat(1.0)

    def threat(self, scale: float) -> ThreatModel:
        """What the attacker may do while the warm-up is at `scale`."""
        return ThreatModel(self.norm, self.eps * scale, self.lower, self.upper)

    @abstractmethod
    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """The points to train on, without gradients; see `__call__` for the arguments."""

    def value(
        self,
        model: nn.Module,
        x: Tensor,
        points: Tensor,
        y: Tensor,
        *,
        generator: Generator,
        scale: float,
    ) -> Tensor:
        """The mean loss, with gradients by the weights, at `points` that `craft` gave for `x`.

        Unless a method says otherwise, the cross-entropy there.
        """
        return F.cross_entropy(model(points), y)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """Craft, with batch norm and dropout in eval mode, and return the loss.

        Args:
            model: In training mode.
            x: (n, *shape), inside the box.
            y: int64, (n,).
            generator: Draws all noise, on the device of `x`.
            scale: Multiplies `eps` and the length of steps.

        Returns:
            The mean loss, a scalar.
        """
        points = self.craft(model, x, y, generator=generator, scale=scale)
        return self.value(model, x, points, y, generator=generator, scale=scale)


@dataclass(kw_only=True, eq=False)
class Searching(Adversarial):
    """Crafts by PGD on the cross-entropy from a random start, not looked at before its end.

    Attributes:
        steps: Gradient steps, >= 0.
        step_size: Length of one, in the units of eps.
    """

    steps: int
    step_size: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(steps=self.steps, step_size=self.step_size)

    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """See `Adversarial`."""
        ball = Ball.around(self.threat(scale), x)
        return worst(model, ball, y, generator, self.steps, self.step_size * scale)


@dataclass(kw_only=True, eq=False)
class PGDTraining(Searching):
    """Cross-entropy at the end of a PGD run (Madry et al., ICLR 2018, equation 2.1)."""

"""Free adversarial training: one backward pass moves weights and inputs (Shafahi et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.balls import Ball
from attacks.errors import AttackError
from attacks.threat import Norm, ThreatModel


@dataclass(kw_only=True, eq=False)
class Free:
    """Cross-entropy at perturbed samples; the loss's own backward pass moves the perturbation.

    Each batch is trained on `replays` times in a row, and the perturbation is kept from one step
    to the next and from batch to batch (NeurIPS 2019, algorithm 1): a step costs what a step of
    plain training does. The gradient is that of training mode, as in the paper. The perturbation
    is set to zero where an epoch begins, so that a training can be resumed there; the paper never
    does that.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: Radius in the units of the input; also the length of a step.
        replays: Steps on each batch (m in the paper), >= 1; the training loop takes them.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.
    """

    norm: Norm
    eps: float
    replays: int = 8
    lower: Tensor
    upper: Tensor
    _moved: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        ThreatModel(self.norm, self.eps, self.lower, self.upper)
        if self.replays < 1:
            raise AttackError(f"replays is {self.replays}: it must be at least 1")

    def begin(self) -> None:
        """Forget the perturbation: an epoch begins."""
        self._moved = None

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """The loss of one step; its backward pass moves the perturbation for the next one.

        Args:
            model: In training mode.
            x: (n, *shape), inside the box.
            y: int64, (n,).
            generator: Not used.
            scale: Multiplies `eps`.

        Returns:
            The mean loss, a scalar.
        """
        ball = Ball.around(ThreatModel(self.norm, self.eps * scale, self.lower, self.upper), x)
        points = self._points(ball).requires_grad_()

        def climb(gradient: Tensor) -> None:
            moved = ball.step(points.detach(), gradient, self.eps * scale)
            self._moved = moved - x

        points.register_hook(climb)  # type: ignore[no-untyped-call]
        return F.cross_entropy(model(points), y)

    def _points(self, ball: Ball) -> Tensor:
        """The samples with the perturbation so far, none where the last batch was smaller."""
        moved = torch.zeros_like(ball.x)
        if self._moved is not None:
            known = self._moved[: len(moved)]
            moved[: len(known)] = known
        return ball.project(ball.x + moved)

"""TRADES: clean loss and a term that keeps nearby outputs alike (Zhang et al., ICML 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.adversarial import Searching, check_not_negative
from attacks.balls import Ball
from attacks.modes import evaluating
from attacks.objectives import ascend

_NOISE = 1e-3  # of the box's range, as in algorithm 1, whose box is [0, 1]


@dataclass(kw_only=True, eq=False)
class Trades(Searching):
    """`CE(f(x), y) + beta KL(p(x) || p(x'))`, x' where PGD on the KL ends.

    PGD starts very near the sample (algorithm 1): at the sample itself the KL has no gradient.

    Attributes:
        beta: Weight of the second term (1 / lambda in the paper), >= 0.
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(beta=self.beta)

    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """See `Adversarial`; `y` is not used."""
        ball = Ball.around(self.threat(scale), x)
        noise = torch.empty_like(x).normal_(generator=generator)
        start = ball.project(x + _NOISE * (self.upper - self.lower) * noise)
        with evaluating(model), torch.no_grad():
            clean = model(x).softmax(1)

        def divergence(logits: Tensor) -> Tensor:
            return F.kl_div(logits.log_softmax(1), clean, reduction="sum")

        return ascend(model, ball, start, self.steps, self.step_size * scale, divergence)

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
        """See `Adversarial`; both outputs of the KL are trained."""
        clean = model(x)
        near = model(points).log_softmax(1)
        apart = F.kl_div(near, clean.log_softmax(1), reduction="batchmean", log_target=True)
        return F.cross_entropy(clean, y) + self.beta * apart

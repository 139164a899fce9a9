"""Adversarial training on one gradient step that does not collapse: N-FGSM and GradAlign.

Trained on plain FGSM, models learn after some epochs to be robust to FGSM alone ("catastrophic
overfitting"). Both methods here are made against that. Watch the robust accuracy in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.adversarial import Adversarial, check_not_negative
from attacks.balls import Ball
from attacks.modes import evaluating
from attacks.objectives import frozen

_TINY = 1e-30


def _input_gradient(model: nn.Module, x: Tensor, y: Tensor, trained: bool) -> Tensor:
    """Gradient of each sample's cross-entropy by its input; by the weights again if `trained`."""
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x, create_graph=trained)
    return gradient


@dataclass(kw_only=True, eq=False)
class OneStep(Adversarial):
    """Crafts in one signed step; trains on the cross-entropy there.

    Attributes:
        norm: "linf": a signed step is what Linf is about.
        alpha: Length of the step in eps, >= 0.
    """

    norm: Literal["linf"]
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(alpha=self.alpha)


@dataclass(kw_only=True, eq=False)
class NoisyFGSM(OneStep):
    """N-FGSM: strong noise, then one step from there, not clipped to eps (de Jorge et al., 2022).

    `x' = x + n + alpha eps sign(grad at x + n)`, n uniform in [-noise eps, noise eps] (NeurIPS
    2022). The points are inside the box, but may be `noise + alpha` times eps away.

    Attributes:
        noise: Half the width of the noise in eps (k in the paper), >= 0.
    """

    noise: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(noise=self.noise)

    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """See `Adversarial`."""
        eps = self.eps * scale
        drawn = torch.empty_like(x).uniform_(-1.0, 1.0, generator=generator)
        start = self._boxed(x + self.noise * eps * drawn)
        with frozen(model):
            gradient = _input_gradient(model, start, y, trained=False)
        return self._boxed(start + self.alpha * eps * gradient.sign())

    def _boxed(self, points: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(points, self.lower), self.upper)


@dataclass(kw_only=True, eq=False)
class GradAlign(OneStep):
    """FGSM from the sample, and a term that keeps the loss's gradient alike in the ball.

    `CE(x') + weight mean(1 - cos(grad at x, grad at x + n))`, n uniform in the ball
    (Andriushchenko and Flammarion, NeurIPS 2020, section 4). Gradients are those of the network in
    eval mode, and both are trained; samples where one vanishes are left out of the mean.

    Attributes:
        weight: Of the term (lambda in the paper), >= 0.
    """

    weight: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(weight=self.weight)

    def craft(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """See `Adversarial`."""
        with frozen(model):
            gradient = _input_gradient(model, x, y, trained=False)
        ball = Ball.around(self.threat(scale), x)
        return ball.step(x, gradient, self.alpha * self.eps * scale)

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
        """See `Adversarial`."""
        turned = self.turned(model, x, y, generator=generator, scale=scale)
        own = super().value(model, x, points, y, generator=generator, scale=scale)
        return own + self.weight * turned

    def turned(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """The mean of `1 - cos`, a scalar in [0, 2]: how far the gradient turns in the ball."""
        ball = Ball.around(self.threat(scale), x)
        drawn = torch.empty_like(x).uniform_(-1.0, 1.0, generator=generator)
        near = ball.project(x + self.eps * scale * drawn)
        with evaluating(model):
            here = _input_gradient(model, x, y, trained=True).flatten(1)
            there = _input_gradient(model, near, y, trained=True).flatten(1)
        lengths = here.norm(dim=1) * there.norm(dim=1)
        cosine = (here * there).sum(1) / lengths.clamp_min(_TINY)
        counted = lengths > _TINY
        total = torch.where(counted, 1 - cosine, 0.0).sum()
        mean: Tensor = total / counted.sum().clamp_min(1)
        return mean

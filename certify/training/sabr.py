"""Training on interval bounds of small boxes at adversarial places (Mueller et al., ICLR 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.balls import Ball
from attacks.objectives import worst
from attacks.threat import ThreatModel
from certify.interval import Interval
from certify.training.network import box, intervals, program, rivals
from certify.training.settings import Count, Linf, Positive, Radius, Share


def sabr(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Linf,
    eps: Radius,
    size: Share,
    steps: Count,
    step_size: Positive,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Cross-entropy of the worst logits over a small box around an adversarial point.

    Args:
        model: In training mode; the attack is on eval mode, bounds see no dropout.
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Draws the attack's starting points, on the device of `x`.
        scale: Multiplies `eps` and `step_size`.
        norm: "linf".
        eps: Radius in the units of the input.
        size: The small box's radius in units of eps (lambda in the paper): 1 is IBP.
        steps: Gradient steps of the attack.
        step_size: Length of one, in the units of eps.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        UnsupportedError: The model holds what cannot be bounded.
    """
    threat = ThreatModel(norm, eps * scale * (1 - size), lower, upper)
    point = worst(model, Ball.around(threat, x), y, generator, steps, step_size * scale)
    network = program(model, x)
    small = small_box(x, point, eps * scale, size, lower, upper)
    return F.cross_entropy(rivals(network, intervals(network, small), y).upper, y)


def small_box(
    x: Tensor, point: Tensor, eps: float, size: float, lower: Tensor, upper: Tensor
) -> Interval:
    """The box of radius `size * eps` around a point, as far as it lies in the ball of x."""
    return box(point, eps * size, lower, upper) & box(x, eps, lower, upper)

"""Convex combinations of an attack's loss and a bound's (De Palma et al., ICLR 2024)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.balls import Ball
from attacks.objectives import worst
from attacks.threat import ThreatModel
from certify.training.ibp import worst_logits
from certify.training.settings import Count, Linf, Positive, Radius, Share


def mtl_ibp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Linf,
    eps: Radius,
    alpha: Share,
    steps: Count,
    step_size: Positive,
    attack_multiplier: Positive = 1.0,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """The convex combination of the losses, `alpha IBP + (1 - alpha) PGD` (MTL-IBP, equation 8).

    Args:
        model: In training mode; the attack is on eval mode, bounds see no dropout.
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Draws the attack's starting points, on the device of `x`.
        scale: Multiplies `eps` and `step_size`.
        norm: "linf".
        eps: Radius in the units of the input.
        alpha: Weight of the bound's loss: 0 is adversarial training, 1 is IBP.
        steps: Gradient steps of the attack.
        step_size: Length of one, in the units of eps.
        attack_multiplier: The attack's radius in units of eps.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        UnsupportedError: The model holds what cannot be bounded.
    """
    threat = ThreatModel(norm, eps * scale * attack_multiplier, lower, upper)
    point = worst(model, Ball.around(threat, x), y, generator, steps, step_size * scale)
    attacked = F.cross_entropy(model(point), y)
    proved = F.cross_entropy(worst_logits(model, x, y, eps * scale, lower, upper), y)
    return alpha * proved + (1 - alpha) * attacked


def cc_ibp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Linf,
    eps: Radius,
    alpha: Share,
    steps: Count,
    step_size: Positive,
    attack_multiplier: Positive = 1.0,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """The loss of the convex combination of logit differences (CC-IBP, equation 7).

    `CE(alpha worst + (1 - alpha) attacked)`, both as differences to the true class's logit; never
    above MTL-IBP's loss, since cross-entropy is convex. Arguments and errors are `mtl_ibp`'s.

    Returns:
        The mean loss, a scalar.
    """
    threat = ThreatModel(norm, eps * scale * attack_multiplier, lower, upper)
    point = worst(model, Ball.around(threat, x), y, generator, steps, step_size * scale)
    logits = model(point)
    attacked = logits - logits.gather(1, y[:, None])
    proved = worst_logits(model, x, y, eps * scale, lower, upper)
    return F.cross_entropy(alpha * proved + (1 - alpha) * attacked, y)

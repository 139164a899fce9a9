"""Training on interval bounds (Gowal et al., arXiv:1810.12715)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from certify.training.network import box, intervals, program, rivals
from certify.training.settings import Linf, Radius, Share


def ibp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Linf,
    eps: Radius,
    kappa_start: Share = 0.0,
    kappa_end: Share = 0.0,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Cross-entropy of the worst logits that interval bounds allow, mixed with that of clean ones.

    `kappa CE(z(x)) + (1 - kappa) CE(worst)` (equation 12), where kappa goes from its start to its
    end as the warm-up does. Gowal et al. take 1 and 0.5, Shi et al. 0 and 0.

    Args:
        model: In training mode; its bounds see no dropout (see `network.program`).
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Not used.
        scale: Multiplies `eps`, and is how far kappa has come.
        norm: "linf".
        eps: Radius in the units of the input.
        kappa_start: Weight of the clean loss at scale 0.
        kappa_end: Weight of the clean loss at scale 1.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        UnsupportedError: The model holds what cannot be bounded.
    """
    kappa = kappa_start + (kappa_end - kappa_start) * scale
    clean = kappa * F.cross_entropy(model(x), y) if kappa else 0.0
    return clean + (1 - kappa) * F.cross_entropy(
        worst_logits(model, x, y, eps * scale, lower, upper), y
    )


def worst_logits(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, lower: Tensor, upper: Tensor
) -> Tensor:
    """Upper bounds of `z_k - z_y` over the eps ball, (n, classes), 0 at k = y.

    Their cross-entropy at y is at least that of the logits of any point of the ball.
    """
    network = program(model, x)
    return rivals(network, intervals(network, box(x, eps, lower, upper)), y).upper

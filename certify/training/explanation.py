"""Training on boxes of explanations (Wicker et al., ICLR 2023), beside any other objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from attacks.explanations import Explanation, explain, seeds
from attacks.modes import evaluating
from attacks.objectives import Base, standard
from attacks.threat import ThreatModel, WeightBudget
from certify.explaining import train_box
from certify.interval import Interval
from certify.training.settings import Linf, PositiveShare, Radius

Penalty = Literal["width", "relative", "cosine"]

_GRADIENT = Explanation()
_TINY = 1e-12


def explanation_box(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Linf,
    eps: Radius,
    gamma: Radius = 0.0,
    alpha: Radius,
    alpha_start: Radius = 0.0,
    penalty: Penalty = "relative",
    share: PositiveShare = 1.0,
    base: Base = standard,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Another loss, plus a penalty on how far gradients may move within eps and gamma.

    `base + alpha * mean of the penalty`, for the gradient of the logit of the class
    that is predicted. The penalty is a function of the box that intervals give (`train_box`):

    - "width": the sum of the box's widths, as in the paper (whose code has it `n / entries` times
      that, n samples to a batch). Smaller gradients have a smaller one: it can be had for nothing.
    - "relative": `log(1 + |radius| / |center|)`, Euclidean norms of the box's own. It does not
      change when all gradients are scaled, and the logarithm keeps wide boxes from drowning `base`.
    - "cosine": 1 less a lower bound of the cosine similarity of any gradient of the box and the
      gradient at the sample itself, which takes one more pass.

    Args:
        model: In training mode; explanations are those of eval mode.
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Passed on to `base`.
        scale: Multiplies `eps` and `gamma`, and is how far alpha has come.
        norm: "linf".
        eps: Radius of the inputs, in their units.
        gamma: How far each weight may move, as a share of itself.
        alpha: Weight of the penalty at scale 1.
        alpha_start: Weight of the penalty at scale 0.
        penalty: Which.
        share: Share of the batch that the penalty is taken of, its first samples.
        base: The loss it is added to; it is called with the same batch, generator and scale.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        UnsupportedError: The model's gradient cannot be bounded.
    """
    loss: Tensor = base(model, x, y, generator=generator, scale=scale)
    some = x[: max(1, round(share * len(x)))]
    weight = alpha_start + (alpha - alpha_start) * scale
    threat = ThreatModel("linf", eps * scale, lower, upper)
    with evaluating(model):
        with torch.no_grad():
            logits = model(some)
        target = logits.argmax(1)
        seed = seeds(_GRADIENT, target, logits.shape[1]).to(some)
        clean = explain(model, some, target).flatten(1) if penalty == "cosine" else None
    budget = WeightBudget(gamma * scale)
    box = train_box(model, some, seed, _GRADIENT, *threat.bounds(some), budget)
    flat = Interval(box.lower.flatten(1), box.upper.flatten(1))
    found = _PENALTIES[penalty](flat) if clean is None else 1 - least_cosine(clean, flat)
    return loss + weight * found.mean()


def width(box: Interval) -> Tensor:
    """Sum of the widths of each row, (n,)."""
    return (box.upper - box.lower).sum(1)


def relative(box: Interval) -> Tensor:
    """`log(1 + |radius| / |center|)` of each row, (n,)."""
    size = torch.linalg.vector_norm(box.center, dim=1).clamp_min(_TINY)
    ratio: Tensor = torch.linalg.vector_norm(box.radius, dim=1) / size
    return ratio.log1p()


def least_cosine(clean: Tensor, box: Interval) -> Tensor:
    """A lower bound, where above 0, of the cosine similarity of `clean` and any row of the box.

    The better of two: the least product over the largest norm, and what a ball around `clean` that
    holds the box allows, `sqrt(1 - (radius / |clean|)^2)`. Not rounded outwards: for training. At
    0 and below it bounds nothing, and still has a gradient.

    Args:
        clean: (n, entries), inside the box.
        box: Of that shape.

    Returns:
        (n,), from -1 to 1.
    """
    size = torch.linalg.vector_norm(clean, dim=1).clamp_min(_TINY)
    product = torch.minimum(clean * box.lower, clean * box.upper).sum(1)
    largest = torch.linalg.vector_norm(box.magnitude, dim=1).clamp_min(_TINY)
    reach = torch.linalg.vector_norm(torch.maximum(box.upper - clean, clean - box.lower), dim=1)
    inside = 1 - (reach / size) ** 2
    ball = torch.where(inside > _TINY, inside.clamp_min(_TINY).sqrt(), -1.0)
    return torch.maximum((product / (size * largest)).clamp_min(-1.0), ball)


_PENALTIES: dict[str, Callable[[Interval], Tensor]] = {"width": width, "relative": relative}

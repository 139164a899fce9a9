"""Training against bent explanations without bounds: penalties on gradients, beside any loss.

Explanations are gradients of the logit of the class that is predicted, with the model in eval
mode. Gradients by weights go through these gradients ("double backward"): through a ReLU they see
the weights and never the masks, whose derivative is zero.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.balls import Ball
from attacks.errors import AttackError
from attacks.explanations import explain
from attacks.modes import evaluating
from attacks.objectives import Base, frozen, standard, worst
from attacks.threat import Norm, ThreatModel

_TINY = 1e-12


def align(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Norm,
    eps: float,
    l2: float,
    cosine: float = 0.0,
    base: Base = standard,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Another loss, plus the distance of gradients at a sample and at a random point near it.

    `base + l2 |g - h|^2 + cosine (1 - cos(g, h)) / 2` (Joo et al., AAAI 2023), with g
    at the sample and h at a point drawn from the ball; both are trained (their code can hold g
    fixed, which is then no descent of this loss). With `cosine` 0 it is the l2 alignment that they
    and Wicker et al. (ICLR 2023) compare with; smaller gradients lower that one, and leave the
    cosine as it is.

    Args:
        model: In training mode.
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Draws the points, on the device of `x`; passed on to `base`.
        scale: Multiplies `eps`.
        norm: "linf", "l2" or "l1".
        eps: Radius in the units of the input.
        l2: Weight of the squared distance, >= 0.
        cosine: Weight of the cosine distance, >= 0.
        base: The loss it is added to.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        AttackError: A weight is negative or not finite.
    """
    _check_weights(l2=l2, cosine=cosine)
    loss: Tensor = base(model, x, y, generator=generator, scale=scale)
    ball = Ball.around(ThreatModel(norm, eps * scale, lower, upper), x)
    near = worst(model, ball, y, generator, 0, 0.0).to(x)
    with evaluating(model):
        target = _predicted(model, x)
        here = explain(model, x, target).flatten(1)
        there = explain(model, near, target).flatten(1)
    apart = (here - there).square().sum(1)
    turned = (1 - F.cosine_similarity(here, there, eps=_TINY)) / 2
    return loss + (l2 * apart + cosine * turned).mean()


def hessian(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    weight: float,
    draws: int = 1,
    step: float | None = None,
    base: Base = standard,
) -> Tensor:
    """Another loss, plus the squared size of the logit's Hessian (Dombrowski et al., 2022).

    `base + weight * mean of |H v|^2` with v from N(0, I): its expectation is the squared Frobenius
    norm of H. The mean over `draws` keeps that, whatever their number.

    Args:
        model: In training mode.
        x: (n, *shape).
        y: int64, (n,).
        generator: Draws v, on the device of `x`; passed on to `base`.
        scale: Multiplies `weight`.
        weight: Weight of the penalty, >= 0.
        draws: How many v for each sample, >= 1.
        step: None differentiates the gradient, which gives zero for ReLU; a length, > 0, takes the
            difference quotient `(g(x + step v) - g(x)) / step` in its place, which sees kinks.
        base: The loss it is added to.

    Returns:
        The mean loss, a scalar.

    Raises:
        AttackError: An argument is not legal, or second derivatives are zero for the whole batch.
    """
    _check_weights(weight=weight)
    if draws < 1:
        raise AttackError(f"draws is {draws}: it must be 1 or more")
    if step is not None and not 0 < step < math.inf:
        raise AttackError(f"step is {step}: it must be finite and above 0")
    loss: Tensor = base(model, x, y, generator=generator, scale=scale)
    total = torch.zeros_like(loss)
    with evaluating(model):
        target = _predicted(model, x)
        for _ in range(draws):
            v = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            moved = (
                _product(model, x, target, v)
                if step is None
                else _quotient(model, x, target, v, step)
            )
            total = total + moved.flatten(1).square().sum(1).mean()
    return loss + weight * scale * total / draws


def _product(model: nn.Module, x: Tensor, target: Tensor, v: Tensor) -> Tensor:
    """`H v`, by differentiating the gradient along v."""
    x = x.detach().requires_grad_()
    along = (explain(model, x, target) * v).sum()
    moved: Tensor | None = None
    if along.requires_grad:
        (moved,) = torch.autograd.grad(along, x, create_graph=True, allow_unused=True)
    if moved is None or not bool(moved.any()):
        raise AttackError(
            "the second derivatives of this model are zero (ReLU?): there is nothing to penalise; "
            "give a step, or train a smooth activation (softplus)"
        )
    return moved


def _quotient(model: nn.Module, x: Tensor, target: Tensor, v: Tensor, step: float) -> Tensor:
    return (explain(model, x + step * v, target) - explain(model, x, target)) / step


def ig_norm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Norm,
    eps: float,
    weight: float,
    steps: int,
    step_size: float,
    points: int = 50,
    search_points: int = 10,
    base: Base = standard,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Another loss, plus the largest change of it that integrated gradients find in the ball.

    `base + weight * max over x' of |IG(x, x')|_1` (IG-NORM, Chen et al., NeurIPS 2019):
    IG attributes the cross-entropy's change from x to x' to the entries, and the maximum is sought
    by gradient steps from a random point.

    Args:
        model: In training mode.
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Draws the starting points, on the device of `x`; passed on to `base`.
        scale: Multiplies `eps` and `step_size`.
        norm: "linf", "l2" or "l1".
        eps: Radius in the units of the input.
        weight: Weight of the penalty, >= 0.
        steps: Gradient steps of the search, >= 0.
        step_size: Length of one, in the units of eps.
        points: Points of the path from x to x', >= 1.
        search_points: The same while searching.
        base: The loss it is added to.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.

    Raises:
        AttackError: An argument is not legal.
    """
    _check_weights(weight=weight)
    if min(points, search_points) < 1:
        raise AttackError("points and search_points must be 1 or more")
    loss: Tensor = base(model, x, y, generator=generator, scale=scale)
    ball = Ball.around(ThreatModel(norm, eps * scale, lower, upper), x)
    found = worst(model, ball, y, generator, 0, 0.0)
    with frozen(model):
        for _ in range(steps):
            found.requires_grad_()
            size = path_attribution(model, x, found, y, search_points).abs().sum()
            (gradient,) = torch.autograd.grad(size, found)
            found = ball.step(found.detach(), gradient, step_size * scale)
    with evaluating(model):
        size = path_attribution(model, x, found, y, points).flatten(1).abs().sum(1)
    return loss + weight * size.mean()


def path_attribution(model: nn.Module, x: Tensor, end: Tensor, y: Tensor, points: int) -> Tensor:
    """Integrated gradients of the cross-entropy from `x` to `end`, right Riemann sum, (n, *shape).

    It can be differentiated by `end` and by the weights.
    """
    share = torch.arange(1, points + 1, dtype=x.dtype, device=x.device) / points
    away = end - x
    path = x.unsqueeze(1) + away.unsqueeze(1) * share.view(-1, *(1,) * (x.dim() - 1))

    def total(at: Tensor) -> Tensor:
        return F.cross_entropy(model(at), y.repeat_interleave(points), reduction="sum")

    gradient: Tensor = torch.func.grad(total)(path.flatten(0, 1))
    return away * gradient.view_as(path).mean(1)


def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        target: Tensor = model(x).argmax(1)
    return target


def _check_weights(**weights: float) -> None:
    for name, value in weights.items():
        if not 0 <= value < math.inf:
            raise AttackError(f"{name} is {value}: it must be finite and not negative")

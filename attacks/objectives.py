"""Training objectives built on attacks: plain functions of a model and a batch, giving a loss.

`generator` draws the noise; `scale` in [0, 1] is the training loop's warm-up and multiplies eps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.balls import Ball
from attacks.modes import evaluating
from attacks.threat import Norm, ThreatModel

Base = Callable[..., Tensor]
"""A loss that another one adds to: `(model, x, y, *, generator, scale) -> loss`."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and without gradients of its weights; as it was afterwards."""
    needed = [(weight, weight.requires_grad) for weight in model.parameters()]
    for weight, _ in needed:
        weight.requires_grad_(False)
    try:
        with evaluating(model):
            yield
    finally:
        for weight, need in needed:
            weight.requires_grad_(need)


def worst(
    model: nn.Module, ball: Ball, y: Tensor, generator: Generator, steps: int, step_size: float
) -> Tensor:
    """Where a PGD run on the cross-entropy ends, one start at random, with the model in eval mode.

    Args:
        model: Left in its mode, without gradients of its weights.
        ball: The legal inputs around each sample.
        y: int64, (n,).
        generator: Draws the starting points, on the device of the samples.
        steps: Gradient steps, >= 0.
        step_size: Length of one, in the units of eps.

    Returns:
        Points in the ball, of the samples' shape.
    """
    keys = torch.randint(2**62, (len(y),), generator=generator, device=y.device)
    found = ball.start(keys)
    with frozen(model):
        for _ in range(steps):
            found.requires_grad_()
            loss = F.cross_entropy(model(found), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, found)
            found = ball.step(found.detach(), gradient, step_size)
    return found


def standard(
    model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
) -> Tensor:
    """Cross-entropy on clean samples.

    Args:
        model: In training mode.
        x: (n, *shape).
        y: int64, (n,).
        generator: Not used.
        scale: Not used.

    Returns:
        The mean loss, a scalar.
    """
    return F.cross_entropy(model(x), y)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    generator: Generator,
    scale: float,
    norm: Norm,
    eps: float,
    steps: int,
    step_size: float,
    lower: Tensor,
    upper: Tensor,
) -> Tensor:
    """Cross-entropy at the end of a PGD run (Madry et al., ICLR 2018, equation 2.1).

    The run starts at random, takes a fixed number of steps on all samples, with batch norm and
    dropout in eval mode, and is not looked at before its end.

    Args:
        model: In training mode.
        x: (n, *shape), inside the box.
        y: int64, (n,).
        generator: Draws the starting points, on the device of `x`.
        scale: Multiplies `eps` and `step_size`.
        norm: "linf", "l2" or "l1".
        eps: Radius in the units of the input.
        steps: Gradient steps, >= 0.
        step_size: Length of one, in the units of eps.
        lower: Lower end of the input box, () or of the shape of a sample.
        upper: Upper end, likewise.

    Returns:
        The mean loss, a scalar.
    """
    ball = Ball.around(ThreatModel(norm, eps * scale, lower, upper), x)
    return F.cross_entropy(model(worst(model, ball, y, generator, steps, step_size * scale)), y)

"""What training objectives are made of: a search from each sample of a batch, and the clean loss.

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


def ascend(
    model: nn.Module,
    ball: Ball,
    found: Tensor,
    steps: int,
    step_size: float,
    loss: Callable[[Tensor], Tensor],
) -> Tensor:
    """Where gradient steps on a loss end, from given points, with the model in eval mode.

    Args:
        model: Left in its mode, without gradients of its weights.
        ball: The legal inputs around each sample.
        found: Legal points to start from, a tensor of the caller's own.
        steps: Gradient steps, >= 0.
        step_size: Length of one, in the units of eps.
        loss: Of logits (n, classes), summed over the samples.

    Returns:
        Points in the ball, of the samples' shape.
    """
    with frozen(model):
        for _ in range(steps):
            found.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(model(found)), found)
            found = ball.step(found.detach(), gradient, step_size)
    return found


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

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, reduction="sum")

    return ascend(model, ball, ball.start(keys), steps, step_size, loss)


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

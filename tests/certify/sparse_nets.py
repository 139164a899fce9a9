"""A tiny network, a set, and a run through a sparse method's steps without the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from certify.sparse import Position, Sparsifier, prunable


def tiny() -> nn.Module:
    """A convolution with batch norm and two linear layers; 36 + 384 + 16 weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 6),
            nn.ReLU(),
            nn.Linear(6, 2),
        )


@dataclass
class Blobs:
    """Images of 1 x 6 x 6, dark or bright."""

    x: Tensor = field(default_factory=lambda: _images())
    y: Tensor = field(default_factory=lambda: torch.arange(48) % 2)
    sha256: str = "0" * 64
    name: str = "blobs"
    lower: float = 0.0
    upper: float = 1.0
    classes: tuple[str, ...] = ("a", "b")


def _images() -> Tensor:
    draw = Generator().manual_seed(0)
    return (
        torch.rand(48, 1, 6, 6, generator=draw) * 0.4
        + (torch.arange(48) % 2)[:, None, None, None] * 0.5
    )


def noisy(model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float) -> Tensor:
    """Cross-entropy at a random point near the sample."""
    noise = torch.rand(x.shape, generator=generator) - 0.5
    return F.cross_entropy(model(x + 0.1 * scale * noise), y)


def draws(purpose: str, step: int) -> Generator:
    """A generator for a purpose and a step."""
    return Generator().manual_seed(step + sum(map(ord, purpose)))


def zeros(model: nn.Module) -> int:
    """Zeros among the prunable weights, counted."""
    return sum(int((weight == 0).sum()) for weight in prunable(model).values())


def steps(
    method: Sparsifier,
    loss: Callable[[], Tensor],
    count: int,
    *,
    per_epoch: int = 5,
    cycles: int = 1,
    optimiser: torch.optim.Optimizer | None = None,
) -> Iterator[int]:
    """Go through a training's steps as the loop does; yields after each `begin`."""
    optimiser = optimiser or torch.optim.SGD(method.model.parameters(), lr=0.1, momentum=0.9)
    for step in range(count):
        if method.begin(Position(step, count, per_epoch, cycles), optimiser):
            optimiser = type(optimiser)(method.model.parameters(), **optimiser.defaults)
        yield step
        method.gradient(loss)
        optimiser.step()
        method.stepped()

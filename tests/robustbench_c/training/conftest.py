"""A tiny separable set, a tiny network with batch norm and dropout, and an objective with noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Blobs:
    x: Tensor
    y: Tensor
    sha256: str = "0" * 64
    name: str = "blobs"
    lower: float = 0.0
    upper: float = 1.0
    classes: tuple[str, ...] = ("a", "b")


@pytest.fixture
def blobs() -> Blobs:
    """90 images of 1 x 4 x 4, dark or bright: separable by their mean."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 2
    x = torch.rand(90, 1, 4, 4, generator=g) * 0.4 + y[:, None, None, None] * 0.5
    return Blobs(x, y)


@pytest.fixture
def make_model() -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return nn.Sequential(
                nn.Conv2d(1, 3, 3),
                nn.BatchNorm2d(3),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Flatten(),
                nn.Linear(12, 2),
            )

    return make


@pytest.fixture
def noisy() -> Callable[..., Tensor]:
    """Cross-entropy at a random point near the sample."""

    def objective(
        model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, scale: float
    ) -> Tensor:
        noise = torch.rand(x.shape, generator=generator) - 0.5
        return F.cross_entropy(model(x + 0.1 * scale * noise), y)

    return objective


@pytest.fixture(autouse=True)
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows of each drawing that `fit` asked for; drawing itself has its own test."""
    calls: list[int] = []
    monkeypatch.setattr(
        "robustbench_c.training.loop.draw", lambda folder, rows, title: calls.append(len(rows))
    )
    return calls

"""Shared by the benchmarks: the shipped models, the shipped images, interleaved timing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from attacks.classifier import TiledClassifier, prepare
from robustbench_c import data, zoo


@dataclass
class Timings:
    """Shortest times of rivals that ran in turns, so that a slow moment hits all of them."""

    best: dict[str, float] = field(default_factory=dict)

    def run(self, rivals: dict[str, Callable[[], object]], rounds: int) -> None:
        for _ in range(rounds):
            for name, call in rivals.items():
                started = time.perf_counter()
                call()
                taken = time.perf_counter() - started
                self.best[name] = min(taken, self.best.get(name, taken))


@dataclass
class Subject:
    """A model with the 1,000 shipped images."""

    classifier: TiledClassifier
    x: torch.Tensor
    y: torch.Tensor
    ids: torch.Tensor


@pytest.fixture
def timings() -> Timings:
    return Timings()


def load_subject(name: str, samples: int = 1000) -> Subject:
    """A model of the zoo, prepared as a run prepares it."""
    loaded, test = zoo.load(name), data.load("fashion-mnist-mini").head(samples)
    return Subject(prepare(loaded.module, test.x), test.x, test.y, test.ids)

"""Shared by the benchmarks: the shipped models, the shipped images, interleaved timing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.classifier import TiledClassifier, prepare
from robustbench_c import data, zoo

PUBLIC = Path(__file__).parents[2].parent / "shared/data/models/convex_adversarial"
"""A public certified model of the small CNN; ROBUSTBENCH_C_MODELS names another folder."""


def public_model() -> torch.nn.Module:
    """The public certified model of the small CNN; skips where it is not there."""
    path = Path(os.environ.get("ROBUSTBENCH_C_MODELS", PUBLIC)) / "fashion_mnist.pth"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return zoo.load(str(path), arch="cnn-small", input_shape=(1, 28, 28), n_classes=10).module


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


def reference_workload() -> torch.Tensor:
    """The unit of time of `robust-leaderboard speed`: what networks do, and no code of ours.

    Matrix products and element-wise passes on fixed numbers; a few milliseconds.
    """
    steps = torch.arange(384 * 384, dtype=torch.float32).reshape(384, 384)
    x, w = torch.sin(steps), torch.cos(steps) / 20
    for _ in range(6):
        x = torch.relu(x @ w).add_(x)
    return x


def beside_reference(benchmark: Any, call: Callable[[], Any], rounds: int = 9) -> Any:
    """Time a call in turns with the reference, so that a slow moment hits both."""
    taken: list[float] = []

    def reference() -> None:
        for _ in range(3):
            started = time.perf_counter()
            reference_workload()
            taken.append(time.perf_counter() - started)

    result = benchmark.pedantic(call, setup=reference, rounds=rounds, iterations=1, warmup_rounds=1)
    benchmark.extra_info["reference_workload"] = taken
    return result


def load_subject(name: str, samples: int = 1000) -> Subject:
    """A model of the zoo, prepared as a run prepares it."""
    loaded, test = zoo.load(name), data.load("fashion-mnist-mini").head(samples)
    return Subject(prepare(loaded.module, test.x), test.x, test.y, test.ids)


def high_water() -> float:
    """Megabytes this process has held at most; `ru_maxrss` of a child starts with its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status")

"""What a training takes, by its first steps."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from attacks import memory
from robustbench_c.evaluation.estimate import Estimate
from robustbench_c.evaluation.run import auto_device
from robustbench_c.training.progress import Progress
from robustbench_c.training.recipe import Recipe
from robustbench_c.training.run import run

_SECONDS = 3.0
_STEPS = 3


class _EnoughError(Exception):
    """Ends the trial."""


class _Watch(Progress):
    """Takes the time of steps, the first of which is left out, until it was long enough."""

    def __init__(self) -> None:
        self.all_steps, self.steps = 0, -1
        self.begun = self.seconds = 0.0

    def start(self, epochs: int, steps: int, done: int) -> None:
        self.all_steps = epochs * steps

    def step(self, epoch: int, step: int, loss: float, samples_per_second: float) -> None:
        self.steps += 1
        if self.steps == 0:
            self.begun = time.perf_counter()
            return
        self.seconds = time.perf_counter() - self.begun
        if self.steps >= _STEPS and self.seconds > _SECONDS:
            raise _EnoughError


def estimate_training(recipe: Recipe, device: str, data_dir: Path | None) -> Estimate:
    """Estimate a training: its steps at the pace of the first ones.

    Measuring the model after each epoch, and later phases of a schedule that take longer per step,
    are not in it.

    Args:
        recipe: What to train.
        device: As of `training.run.run`.
        data_dir: Likewise.
    """
    watch, where = _Watch(), torch.device(auto_device(device))
    memory.reset_peak(where)
    with tempfile.TemporaryDirectory() as folder, suppress(_EnoughError):
        run(recipe, Path(folder), device=device, data_dir=data_dir, progress=watch)
    seconds = watch.all_steps * watch.seconds / max(1, watch.steps)
    return Estimate(seconds, seconds, memory.peak(where))

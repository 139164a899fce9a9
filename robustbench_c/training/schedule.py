"""Learning rate and eps as pure functions of the step, so that a resume needs no state."""

from __future__ import annotations

import math

from robustbench_c.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Learning rate of one step, in a cycle, taken at the step's middle (so the first is never 0).

    Args:
        config: Gives the peak and the schedule's shape.
        step: Number of the step in the cycle, from 0.
        steps: Steps in a cycle.
    """
    done = (step + 0.5) / steps
    match config.schedule:
        case "constant":
            factor = 1.0
        case "cosine":
            factor = (1 + math.cos(math.pi * done)) / 2
        case "one-cycle":
            factor = min(done / config.peak_at, (1 - done) / (1 - config.peak_at))
    return config.learning_rate * factor


def eps_scale(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Factor in [0, 1] for the objective's eps at one step: linear over the warm-up, then 1."""
    if config.eps_warmup_epochs == 0:
        return 1.0
    return min(1.0, step / (config.eps_warmup_epochs * steps_per_epoch))

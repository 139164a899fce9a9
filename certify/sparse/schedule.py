"""Sparsity, and the share of weights that is replaced, as pure functions of training's progress."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Position:
    """Where training is.

    Attributes:
        step: Number of the step to come, from 0.
        steps: Steps in the whole run.
        steps_per_epoch: Steps in an epoch.
        cycles: How often the schedules of learning rate and eps run through.
    """

    step: int
    steps: int
    steps_per_epoch: int
    cycles: int = 1

    @property
    def done(self) -> float:
        """Share of the run that is over, in [0, 1)."""
        return self.step / self.steps

    @property
    def steps_per_cycle(self) -> int:
        """Steps in a cycle of the schedules."""
        return self.steps // self.cycles


def cubic_sparsity(start: float, end: float, begin: float, until: float, done: float) -> float:
    """Sparsity that rises fast at first (Zhu and Gupta 2017, equation 1).

    Args:
        start: Sparsity up to `begin`.
        end: Sparsity from `until` on.
        begin: Share of the run at which it starts to rise.
        until: Share of the run at which it is reached.
        done: Share of the run that is over.
    """
    if done >= until:
        return end
    left = 1 - max(0.0, done - begin) / (until - begin)
    return end + (start - end) * left**3


def cosine_share(share: float, until: float, done: float) -> float:
    """Share of the kept weights that an update replaces: falls to 0 (Evci et al., equation 1)."""
    if done >= until:
        return 0.0
    return share / 2 * (1 + math.cos(math.pi * done / until))


def geometric_sparsity(end: float, done: float) -> float:
    """Sparsity of rounds that each keep the same share of what is left (Frankle and Carbin 2019).

    Args:
        end: Sparsity of the last round.
        done: Share of the rounds that are over, this one included.
    """
    return 1 - math.pow(1 - end, done)

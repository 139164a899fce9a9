"""Sigma-zero (Cina et al., ICLR 2025): the adversarial example that changes the fewest features.

Gradient descent on the loss and a smooth stand-in for the number of changed features. Changes below
a threshold are undone at each step; it rises while the point is adversarial, and falls otherwise.

That mostly ends one feature or two above the fewest on linear models. So, unlike in the paper, the
last moves each try the best change of one feature less than was needed so far, by the slope where
the search stands: the features of largest gain go to the end of their range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State
from attacks.offsets import TINY, Offsets
from attacks.problem import Problem
from attacks.threat import ThreatModel

_STEP, _STEP_LEFT = 1.0, 0.1  # in ranges of a feature; what is left at last
_SIGMA = 1e-3  # how smooth the stand-in is
_THRESHOLD, _THRESHOLD_RATE = 0.3, 0.01  # in ranges of a feature; per unit of step
_FIRST, _SECOND = 0.9, 0.999  # Adam's averages
_NOISE = 1e-8
_SEARCH = 10  # moves at the end


@dataclass(frozen=True)
class SigmaZeroConfig:
    """Settings of sigma-zero; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of one run, > 10: the last ten are tries. A run starts at the sample
            and has no noise.
        targets: Other classes to aim at one after the other, one run each, the likeliest on the
            clean sample first, at most those that there are; 0: one run, as in the paper, at every
            step towards the likeliest there.
    """

    steps: int = 1000
    targets: int = 0

    def __post_init__(self) -> None:
        if self.steps <= _SEARCH:
            raise AttackError(f"steps is {self.steps}: it must be at least {_SEARCH + 1}")
        if self.targets < 0:
            raise AttackError(f"targets is {self.targets}: it must be 0 or more")


def best_change(slope: Tensor, low: Tensor, high: Tensor, count: Tensor) -> Tensor:
    """The change of at most `count` features (one at least) that gains most along a slope.

    Args:
        slope: (n, d).
        low: Most that a feature may fall, (n, d), <= 0.
        high: Most that it may rise, (n, d), >= 0.
        count: (n, 1).
    """
    end = torch.where(slope > 0, high, low)
    order = (slope * end).argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(order.shape[1], device=order.device).expand_as(order)
    kept = torch.zeros_like(order).scatter(1, order, rank) < count.clamp_min(1)
    return torch.where(kept & (slope != 0), end, 0.0)


class SigmaZero(Method):
    """Sigma-zero as a `Method`; any wrong class counts, whatever the target of the run."""

    strays = True
    norms = ("l0",)

    def __init__(self, config: SigmaZeroConfig, threat: ThreatModel, classes: int) -> None:
        self.threat, self.aims = threat, min(config.targets, classes - 1)
        self.name = "sigma-zero" + ("-t" if self.aims else "")
        self.runs, self.steps = max(1, self.aims), config.steps

    def begin(self, lanes: Lanes) -> State:
        """At the sample."""
        x = lanes.ball.x
        zero = torch.zeros_like(x.flatten(1), dtype=torch.float64)
        return {
            "point": x,
            "change": zero,
            "first": zero,
            "second": zero,
            "fewest": torch.full_like(zero[:, :1], torch.inf),
            "threshold": torch.full_like(zero[:, :1], _THRESHOLD),
        }

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """Logit of the target, or the likeliest other, less the own (`move` cuts it off at 0)."""
        return lanes.gain(logits, self.aims)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithm 1, with changes in ranges of their features."""
        s, frame = lanes.state, Offsets.around(self.threat, lanes.ball.x)
        span = frame.high - frame.low
        step = lanes.step.double()[:, None]
        wave = (1 + (math.pi * step / self.steps).cos()) / 2
        length = _STEP * (_STEP_LEFT + (1 - _STEP_LEFT) * wave)
        over = (loss > 0)[:, None]
        threshold = s["threshold"] + torch.where(over, 1.0, -1.0) * _THRESHOLD_RATE * length
        threshold = threshold.clamp(0.0, 1.0)
        change = s["change"]
        count = (change != 0).double().sum(1, keepdim=True)
        fewest = torch.where(over, torch.minimum(s["fewest"], count), s["fewest"])
        gain = frame.slope(gradient)
        tried = best_change(gain, frame.low, frame.high, fewest - 1)
        fewer = 2 * _SIGMA * change / (change**2 + _SIGMA) ** 2 / change.shape[1]
        slope = torch.where(over, 0.0, -gain * span) + fewer
        slope = slope / slope.abs().amax(1, keepdim=True).clamp_min(TINY)
        first = _FIRST * s["first"] + (1 - _FIRST) * slope
        second = _SECOND * s["second"] + (1 - _SECOND) * slope**2
        size = (second / (1 - _SECOND ** (step + 1))).sqrt() + _NOISE
        change = change - length * first / (1 - _FIRST ** (step + 1)) / size
        room = span.clamp_min(TINY)
        change = torch.minimum(torch.maximum(change, frame.low / room), frame.high / room)
        change = torch.where(change.abs() >= threshold, change, 0.0)
        change = torch.where(step >= self.steps - _SEARCH, tried / room, change)
        lanes.state = {
            "point": frame.place(change * span),
            "change": change,
            "fewest": fewest,
            "first": first,
            "second": second,
            "threshold": threshold,
        }


@Attack
def sigma_zero(config: SigmaZeroConfig, problem: Problem) -> Method:
    """sigma-zero; for L0."""
    return SigmaZero(config, problem.threat, problem.clean.shape[1])

"""PDPGD for L1: primal-dual proximal gradient descent (Matyasko and Chau, 2021, arXiv 2106.01538).

The nearest adversarial example is a saddle point of `|z| - weight * gain(x + z)`. The perturbation
descends by proximal steps, the weight rises while the point is classified rightly and falls while
it is not, so that the search hovers about the boundary, ever closer.

It differs from the paper where the exact distance on linear models was missed otherwise, by several
percent. The weight follows the gain extrapolated by one step, as in Chambolle and Pock 2011, and is
not averaged: averages lag, and lag feeds the oscillation. Both steps begin at 0.3, not 0.1, without
momentum. A run can aim at one class. The proximal step, box included, is in closed form.
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

_STEP, _STEP_LEFT = 0.3, 0.01  # of the perturbation, in ranges of a feature; what is left at last
_RATE, _RATE_LEFT = 0.3, 0.1  # of the weight's logarithm
_WEIGHT = 0.3  # at first; at 1 the steepest feature is worth its price, were it the widest
_AVERAGE = 0.999  # of squared slopes, over the steps
_FLATTEST = 1e-12  # root of that average, as a share of the steepest slope


@dataclass(frozen=True)
class PDPGDConfig:
    """Settings of PDPGD; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of one run, >= 1. A run starts at the sample and has no noise.
        targets: Other classes to aim at one after the other, one run each, the likeliest on the
            clean sample first, at most those that there are; 0: one run, at every step towards the
            likeliest there.
    """

    steps: int = 500
    targets: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise AttackError(f"steps is {self.steps}: it must be at least 1")
        if self.targets < 0:
            raise AttackError(f"targets is {self.targets}: it must be 0 or more")


class PDPGD(Method):
    """PDPGD as a `Method`; any wrong class counts, whatever the target of the run."""

    strays = True
    norms = ("l1",)

    def __init__(self, config: PDPGDConfig, threat: ThreatModel, classes: int) -> None:
        self.threat, self.aims = threat, min(config.targets, classes - 1)
        self.name = "pdpgd" + ("-t" if self.aims else "")
        self.runs, self.steps = max(1, self.aims), config.steps

    def begin(self, lanes: Lanes) -> State:
        """At the sample, with a small weight on the gain."""
        x = lanes.ball.x
        zero = torch.zeros_like(x.flatten(1), dtype=torch.float64)
        return {
            "point": x,
            "perturbation": zero,
            "square": zero,
            "log_weight": torch.full_like(zero[:, :1], math.log(_WEIGHT)),
            "gain": zero[:, :1],
        }

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """The gain: of the target, or the likeliest other class, over the own."""
        return lanes.gain(logits, self.aims)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """One step of both players; each feature has a metric of its own, as in RMSprop."""
        s, frame = lanes.state, Offsets.around(self.threat, lanes.ball.x)
        step = lanes.step.double()[:, None]
        share = step / self.steps
        gain = loss.double().nan_to_num(0.0, 0.0, 0.0)[:, None]
        ahead = torch.where(step == 0, gain, 2 * gain - s["gain"])
        log_weight = s["log_weight"] - _RATE * _RATE_LEFT**share * ahead.sign()
        # in ranges of each feature, the steepest of slope 1: no unit of inputs or logits matters
        span = frame.high - frame.low
        slope = frame.slope(gradient) * span
        slope = slope / slope.abs().amax(1, keepdim=True).clamp_min(TINY)
        square = _AVERAGE * s["square"] + (1 - _AVERAGE) * slope**2
        metric = (square / (1 - _AVERAGE ** (step + 1))).sqrt().clamp_min(_FLATTEST)
        pace = _STEP * _STEP_LEFT**share / metric
        onward = s["perturbation"] + span * pace * slope
        share_of_widest = span / span.amax(1, keepdim=True).clamp_min(TINY)
        threshold = span * pace * share_of_widest / log_weight.exp()
        onward = onward.sign() * (onward.abs() - threshold).clamp_min(0.0)
        onward = torch.minimum(torch.maximum(onward, frame.low), frame.high)
        lanes.state = {
            "point": frame.place(onward),
            "perturbation": onward,
            "square": square,
            "log_weight": log_weight,
            "gain": gain,
        }


@Attack
def pdpgd(config: PDPGDConfig, problem: Problem) -> Method:
    """Primal-dual proximal gradient descent; for L1."""
    return PDPGD(config, problem.threat, problem.clean.shape[1])

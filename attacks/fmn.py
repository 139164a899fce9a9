"""FMN, fast minimum-norm attacks (Pintor et al., NeurIPS 2021), for Linf, L2 and L1.

Steps of a sinking length up a difference of logits, projected onto (a ball around the sample,
intersected with the box); the ball shrinks where the point is adversarial and grows where not.

Two departures from Algorithm 1, both for models and inputs that are not images in [0, 1]. The
length of a step is measured in radii of the ball, so that units do not matter. And the first
guess of the radius, the distance of the linearised boundary, is exceeded by the share gamma:
of a linear model the boundary would be reached but never crossed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State
from attacks.losses import margin
from attacks.offsets import TINY, Offsets, dual_length, length
from attacks.problem import Problem
from attacks.projections import PROJECTIONS
from attacks.threat import ThreatModel

_LAST_GAMMA = 0.001
_SUNK = 0.01
_SMALL = 1e-30  # a radius to divide by, where the sample itself is adversarial


@dataclass(frozen=True)
class FMNConfig:
    """Settings of FMN; every one of them is part of the protocol.

    Attributes:
        steps: Moves of one run, >= 1.
        alpha: Length of the first step in radii of the ball (Linf: in root mean square over the
            features), > 0; by the last it has sunk to a hundredth. None: 10 for Linf and 1
            otherwise, as in the paper.
        gamma: First share by which the ball grows or shrinks, in [0.001, 1); at last it is 0.001.
        targets: Other classes to aim at one after the other, the likeliest on the clean sample
            first, at most those that there are; 0: away from the true class.
    """

    steps: int = 100
    alpha: float | None = None
    gamma: float = 0.05
    targets: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.targets < 0:
            raise AttackError(
                f"steps is {self.steps} and targets {self.targets}: they must be at least 1 and 0"
            )
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise AttackError(f"alpha is {self.alpha}: it must be positive and finite")
        if not _LAST_GAMMA <= self.gamma < 1:
            raise AttackError(f"gamma is {self.gamma}: it must be at least 0.001 and below 1")

    def resolved_alpha(self, norm: str) -> float:
        """The first step's length, as a number."""
        return (10.0 if norm == "linf" else 1.0) if self.alpha is None else self.alpha


class FMN(Method):
    """FMN as a `Method`; any wrong class counts, whatever the target of the run."""

    strays = True

    def __init__(self, config: FMNConfig, threat: ThreatModel, classes: int) -> None:
        self.config, self.threat = config, threat
        self.aims = min(config.targets, classes - 1)
        self.name = "fmn" + ("-t" if self.aims else "")
        self.runs, self.steps = max(1, self.aims), config.steps
        self.alpha = config.resolved_alpha(threat.norm)

    def begin(self, lanes: Lanes) -> State:
        """At the sample."""
        none = torch.zeros(len(lanes.keys), 1, dtype=torch.float64, device=lanes.keys.device)
        return {"point": lanes.ball.x, "radius": none, "nearest": none + torch.inf}

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """Difference of two logits: of the target, or the likeliest other class, and the own."""
        return lanes.gain(logits, self.aims)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithm 1: the radius first, then a step inside of it."""
        s, norm = lanes.state, self.threat.norm
        frame = Offsets.around(self.threat, lanes.ball.x)
        here, slope = frame.of(s["point"]), frame.slope(gradient)
        sinking = ((1 + (math.pi / self.steps * lanes.step.double()).cos()) / 2)[:, None]
        gamma = _LAST_GAMMA + (self.config.gamma - _LAST_GAMMA) * sinking
        alpha = self.alpha * (_SUNK + (1 - _SUNK) * sinking)
        away, beyond = length(norm, here), (margin(logits, lanes.y) < 0)[:, None]
        nearest = torch.where(beyond, torch.minimum(away, s["nearest"]), s["nearest"])
        left = -loss.double()[:, None].nan_to_num(0.0, 0.0, 0.0)
        guess = away + left / dual_length(norm, slope).clamp_min(TINY)
        grown = torch.where(nearest < torch.inf, s["radius"], guess) * (1 + gamma)
        shrunk = torch.minimum(s["radius"] * (1 - gamma), nearest)
        radius = torch.where(beyond, shrunk, torch.minimum(grown, frame.farthest()))
        unit = radius.clamp_min(_SMALL)
        if norm == "linf":
            alpha = alpha * math.sqrt(here.shape[1])
        ahead = here / unit + alpha * slope / length("l2", slope).clamp_min(TINY)
        inside = PROJECTIONS[norm](ahead, frame.low / unit, frame.high / unit, 1.0)
        lanes.state = {"point": frame.place(radius * inside), "radius": radius, "nearest": nearest}


@Attack
def fmn(config: FMNConfig, problem: Problem) -> Method:
    """Fast minimum-norm attack."""
    return FMN(config, problem.threat, problem.clean.shape[1])

"""DDN, decoupled direction and norm (Rony et al., CVPR 2019), for L2.

Steps up the loss, of a sinking length; then the perturbation gets a norm of its own, smaller than
the last where the point is adversarial and larger where it is not.

One departure from Algorithm 1: the length of a step is measured in the norm of the perturbation,
so that it suits any units and any distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State
from attacks.losses import LOSSES, LossName, attack_loss, margin
from attacks.offsets import TINY, Offsets, length
from attacks.problem import Problem
from attacks.threat import ThreatModel

_SUNK = 0.01


@dataclass(frozen=True)
class DDNConfig:
    """Settings of DDN; every one of them is part of the protocol.

    Attributes:
        steps: Moves of one run, >= 1.
        radius: First norm of the perturbation in units of eps, > 0. From there it has to come to
            the distance of the boundary by factors of `1 - gamma` or `1 + gamma`, one at a step.
            None: eps, but at most 1, which is the paper's.
        gamma: Share by which the norm grows or shrinks at a step, in (0, 1).
        loss: "ce", "margin", "dlr" or "probability-margin".
        targets: Other classes to aim at one after the other, the likeliest on the clean sample
            first, at most those that there are; 0: away from the true class.
    """

    steps: int = 100
    radius: float | None = None
    gamma: float = 0.05
    loss: LossName = "ce"
    targets: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.targets < 0:
            raise AttackError(
                f"steps is {self.steps} and targets {self.targets}: they must be at least 1 and 0"
            )
        if self.radius is not None and not 0 < self.radius < float("inf"):
            raise AttackError(f"radius is {self.radius}: it must be positive and finite")
        if not 0 < self.gamma < 1:
            raise AttackError(f"gamma is {self.gamma}: it must be between 0 and 1")
        if self.loss not in LOSSES:
            raise AttackError(f"unknown loss '{self.loss}': use one of {', '.join(LOSSES)}")

    def resolved_radius(self, eps: float) -> float:
        """The first norm of the perturbation, as a number."""
        return min(eps, 1.0) if self.radius is None else self.radius


class DDN(Method):
    """DDN as a `Method`; any wrong class counts, whatever the target of the run."""

    strays = True

    def __init__(self, config: DDNConfig, threat: ThreatModel, classes: int) -> None:
        if threat.norm != "l2":
            raise AttackError(f"the norm is {threat.norm}: DDN is an attack in l2")
        self.config, self.threat = config, threat
        self.aims = min(config.targets, classes - 1)
        self.name = f"ddn-{config.loss}" + ("-t" if self.aims else "")
        self.runs, self.steps = max(1, self.aims), config.steps

    def begin(self, lanes: Lanes) -> State:
        """At the sample."""
        none = torch.zeros(len(lanes.keys), 1, dtype=torch.float64, device=lanes.keys.device)
        return {
            "point": lanes.ball.x,
            "radius": none + self.config.resolved_radius(self.threat.eps),
        }

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """The configured loss, towards the target of the run where there is one."""
        function = attack_loss(self.config.loss, logits.shape[1], self.aims > 0)
        target = lanes.problem.ranked[lanes.sample, lanes.run] if self.aims else lanes.y
        return function(logits, lanes.y, target)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithm 1: a step, then the norm."""
        radius, gamma = lanes.state["radius"], self.config.gamma
        frame = Offsets.around(self.threat, lanes.ball.x)
        slope = frame.slope(gradient)
        sinking = ((1 + (math.pi / self.steps * lanes.step.double()).cos()) / 2)[:, None]
        alpha = radius * (_SUNK + (1 - _SUNK) * sinking)
        here = frame.of(lanes.state["point"])
        ahead = here + alpha * slope / length("l2", slope).clamp_min(TINY)
        beyond = (margin(logits, lanes.y) < 0)[:, None]
        radius = radius * torch.where(beyond, 1 - gamma, 1 + gamma)
        radius = torch.minimum(radius, frame.farthest())
        offset = radius * ahead / length("l2", ahead).clamp_min(TINY)
        lanes.state = {"point": frame.place(offset), "radius": radius}


@Attack
def ddn(config: DDNConfig, problem: Problem) -> Method:
    """Decoupled direction and norm; for L2."""
    return DDN(config, problem.threat, problem.clean.shape[1])

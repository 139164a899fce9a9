"""Auto-PGD (Croce and Hein, ICML 2020): gradient ascent with momentum that sets its own steps.

For L1, where dense steps stall, see `attacks.apgd_l1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.apgd_l1 import APGDL1
from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State
from attacks.losses import LOSSES, LossName, attack_loss
from attacks.problem import Problem
from attacks.rows import wide
from attacks.threat import ThreatModel

_RHO = 0.75
_MOMENTUM = 0.75
Projection = Literal["exact", "shrink"]


@dataclass(frozen=True)
class APGDConfig:
    """Settings of APGD; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of one run, >= 1.
        restarts: Random starts (for each target, where there are some), >= 1.
        loss: "ce", "margin", "dlr" or "probability-margin".
        targets: Other classes to aim at one after the other, the likeliest on the clean sample
            first, at most those that there are; 0: away from the true class.
        projection: Of L2: "exact", onto ball and box at once, or "shrink", onto the ball and then
            to the box, as the code published with the paper. The other norms have but one.
    """

    steps: int = 100
    restarts: int = 1
    loss: LossName = "ce"
    targets: int = 0
    projection: Projection = "exact"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise AttackError(
                f"steps is {self.steps} and restarts {self.restarts}: both must be at least 1"
            )
        if self.loss not in LOSSES:
            raise AttackError(f"unknown loss '{self.loss}': use one of {', '.join(LOSSES)}")
        if self.targets < 0:
            raise AttackError(f"targets is {self.targets}: it must be 0 or more")
        if self.projection not in get_args(Projection):
            raise AttackError(f"unknown projection '{self.projection}': use exact or shrink")


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is looked at (section 3, "step size selection").

    The first window is 0.22 of all steps; each is shorter than the one before by 0.03 of them,
    down to 0.06.
    """
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = [], window
    while at <= steps:
        found.append(at)
        window = max(window - less, least)
        at += window
    return found


class APGD(Method):
    """APGD for Linf and L2 as a `Method`."""

    def __init__(
        self, config: APGDConfig, threat: ThreatModel, classes: int, table: Tensor | None = None
    ) -> None:
        """Run `r` is towards column `r` of `table` (n, targets); without it by the clean logits."""
        self.config, self.eps, self.table = config, threat.eps, table
        self.shrinks = config.projection == "shrink" and threat.norm == "l2"
        self.aims = min(config.targets, classes - 1)
        self.name = f"apgd-{config.loss}" + ("-t" if self.aims else "")
        self.runs, self.steps = config.restarts * max(1, self.aims), config.steps
        marks = [0, *checkpoints(config.steps)]
        self.window = torch.zeros(config.steps + 2, device=threat.lower.device)
        for before, mark in pairwise(marks):
            self.window[mark] = mark - before

    def begin(self, lanes: Lanes) -> State:
        """At a random point: for Linf and L2 on the sphere, clipped to the box."""
        point, n = lanes.ball.outermost(lanes.keys), len(lanes.keys)
        low = torch.full((n,), -torch.inf, device=point.device)
        return {
            "point": point,
            "older": point,
            "best": point,
            "gradient": torch.zeros_like(point),
            "best_loss": low,
            "checked_loss": low,
            "last_loss": low,
            "length": torch.full_like(low, 2.0 * self.eps),
            "rises": torch.zeros_like(low),
            "halved": torch.zeros_like(low, dtype=torch.bool),
        }

    def target(self, lanes: Lanes) -> Tensor:
        """The class that each row raises, (tile,); the true one where it raises no certain one."""
        if not self.aims:
            return lanes.y
        table = lanes.problem.ranked if self.table is None else self.table
        return table[lanes.sample, lanes.run % self.aims]

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """The configured loss, towards the target of the run where there is one."""
        function = attack_loss(self.config.loss, logits.shape[1], self.aims > 0)
        return function(logits, lanes.y, self.target(lanes))

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithm 1: keep the best point, halve the step at checkpoints, take a step."""
        s, ball = lanes.state, lanes.ball
        loss = loss.nan_to_num(-torch.inf)
        better = loss > s["best_loss"]
        best = torch.where(wide(better, gradient), s["point"], s["best"])
        best_gradient = torch.where(wide(better, gradient), gradient, s["gradient"])
        best_loss = torch.maximum(loss, s["best_loss"])
        rises = s["rises"] + ((loss > s["last_loss"]) & (lanes.step > 0))
        window = self.window[lanes.step]
        check = window > 0
        stuck = ~s["halved"] & (best_loss <= s["checked_loss"])
        halve = check & ((rises <= _RHO * window) | stuck)
        length = torch.where(halve, s["length"] / 2, s["length"])
        here = torch.where(wide(halve, gradient), best, s["point"])
        uphill = torch.where(wide(halve, gradient), best_gradient, gradient)
        step = ball.whole_step if self.shrinks else ball.step
        ahead = step(here, uphill, length)
        first = wide(lanes.step == 0, gradient)
        kept = torch.where(first, 1.0, _MOMENTUM).double()
        exact = here.double()
        onward = exact + kept * (ahead.double() - exact)
        onward += (1 - kept) * (exact - s["older"].double())
        lanes.state = {
            "point": ball.shrink(onward) if self.shrinks else ball.project(onward),
            "older": here,
            "best": best,
            "gradient": best_gradient,
            "best_loss": best_loss,
            "checked_loss": torch.where(check, best_loss, s["checked_loss"]),
            "last_loss": loss,
            "length": length,
            "rises": torch.where(check, 0.0, rises),
            "halved": torch.where(check, halve, s["halved"]),
        }


def method_of(
    config: APGDConfig, threat: ThreatModel, classes: int, table: Tensor | None = None
) -> Method:
    """APGD for any norm; see `APGD` for the arguments."""
    method = APGD(config, threat, classes, table)
    return APGDL1(method, threat) if threat.norm == "l1" else method


@Attack
def apgd(config: APGDConfig, problem: Problem) -> Method:
    """Auto-PGD."""
    return method_of(config, problem.threat, problem.clean.shape[1])

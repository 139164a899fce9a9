"""Projected gradient descent (Madry et al., ICLR 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State, drive
from attacks.losses import LOSSES, LossName, attack_loss
from attacks.problem import Limits, Problem
from attacks.result import AttackResult, Progress
from attacks.threat import ThreatModel

Goal = Literal["untargeted", "multi-targeted"]


@dataclass(frozen=True)
class PGDConfig:
    """Settings of PGD; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of one restart, >= 1.
        restarts: Independent runs, >= 1; a sample stops at the first that breaks it.
        step_size: Length of a step in units of eps, > 0, constant; None is `eps / 4`, of the
            usual choices the one that broke most. "PGD-40" without it is not one attack: from
            eps/30 to eps/4 the robust accuracy of one model was seen to fall from 26% to 5%.
        loss: "ce", "margin" or "dlr".
        random_start: Start at a random point of the ball, otherwise at the sample (then
            `restarts` must be 1).
        goal: "untargeted", or "multi-targeted": restart `r` raises the class that comes `r`-th
            after the true one on the clean sample. Either counts any wrong class as broken.
    """

    steps: int = 40
    restarts: int = 5
    step_size: float | None = None
    loss: LossName = "ce"
    random_start: bool = True
    goal: Goal = "untargeted"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise AttackError(
                f"steps is {self.steps} and restarts {self.restarts}: both must be at least 1"
            )
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise AttackError(f"step_size is {self.step_size}: it must be positive and finite")
        if self.loss not in LOSSES:
            raise AttackError(f"unknown loss '{self.loss}': use one of {', '.join(LOSSES)}")
        if self.goal not in ("untargeted", "multi-targeted"):
            raise AttackError(f"unknown goal '{self.goal}': use untargeted or multi-targeted")
        if not self.random_start and self.restarts > 1 and self.goal == "untargeted":
            raise AttackError("without a random start every restart is the same: set restarts to 1")

    def resolved_step(self, eps: float) -> float:
        """The step's length in units of eps, as a number."""
        return eps / 4 if self.step_size is None else self.step_size


class _PGD(Method):
    """Steps of constant length from a random start."""

    name = "pgd"

    def __init__(self, config: PGDConfig, eps: float, targets: Tensor | None) -> None:
        self.config, self.runs, self.steps = config, config.restarts, config.steps
        self.length, self.targets = config.resolved_step(eps), targets

    def begin(self, lanes: Lanes) -> State:
        ball = lanes.ball
        point = ball.start(lanes.keys) if self.config.random_start else ball.x
        return {"point": point, "older": point}

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        label = lanes.y
        if self.targets is not None:
            target = self.targets[lanes.sample]
        elif self.config.goal == "multi-targeted":
            ranked = lanes.problem.ranked
            target = ranked[lanes.sample, lanes.run % ranked.shape[1]]
        else:
            return attack_loss(self.config.loss, logits.shape[1], False)(logits, label, label)
        return attack_loss(self.config.loss, logits.shape[1], True)(logits, label, target)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """One step.

        A step depends on the iterate alone, so where the next iterate is the one before the present
        one the run goes back and forth for ever between two points that have been looked at: ending
        it changes no result. Most runs of signed steps end like that, long before their last step.
        """
        point, older = lanes.state["point"], lanes.state["older"]
        moved = lanes.ball.step(point, gradient, self.length)
        lanes.state = {"point": moved, "older": point}
        return (lanes.step > 0) & (moved == older).flatten(1).all(1)


def pgd(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    config: PGDConfig,
    seed: int,
    targets: Tensor | None = None,
    active_set: bool = True,
    confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> AttackResult:
    """Attack each sample until it breaks or its restarts are used up.

    Args:
        classifier: The model, in tiles.
        x: Samples inside the box, float32, (n, *shape), on the model's device.
        y: True classes, int64, (n,).
        ids: Sample ids that key the noise, int64, (n,).
        threat: What the attacker may do, on the same device.
        config: Steps, restarts, step size, loss.
        seed: Seed of the noise.
        targets: A class for each sample, int64, (n,): success is this class predicted, not any
            wrong one. None otherwise.
        active_set: Whether broken samples leave. Off, they are carried to the end of the restart
            at full cost, for the test that this changes no result.
        confirm: Says of inputs that are misclassified, and their true classes, which of them count
            (float64 may disagree); the search goes on where one does not. None: all do.
        progress: Called with (samples finished, samples broken) as they change.
        limits: What may be spent; None: all that the settings ask for.

    Returns:
        What was found. The caller re-checks it (`attacks.driver`) before it counts.
    """
    problem = Problem(
        classifier,
        x,
        y,
        ids,
        threat,
        seed,
        targets,
        confirm,
        active_set,
        progress=progress,
        limits=limits,
    )
    return drive(problem, _PGD(config, threat.eps, targets))

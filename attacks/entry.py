"""How attacks are called: one signature for all that are a method of `attacks.lanes`."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Generic, TypeVar

from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.lanes import Method, drive
from attacks.problem import Limits, Problem
from attacks.result import AttackResult, Progress
from attacks.threat import ThreatModel

Config = TypeVar("Config", contravariant=True)


class Attack(Generic[Config]):
    """An attack as a function; decorates the one that makes its method, whose name it takes."""

    def __init__(self, method: Callable[[Config, Problem], Method]) -> None:
        self.method = method
        update_wrapper(self, method)

    def __call__(
        self,
        classifier: TiledClassifier,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        threat: ThreatModel,
        config: Config,
        seed: int,
        confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
        progress: Progress | None = None,
        minimal: bool = False,
        limits: Limits | None = None,
    ) -> AttackResult:
        """Attack each sample until it breaks or its runs are used up.

        Args:
            classifier: See `attacks.problem.Problem`, as for all that is not named here.
            x: Samples.
            y: True classes.
            ids: Sample ids.
            threat: What the attacker may do.
            config: Settings of the attack.
            seed: Seed of the noise.
            confirm: Which finds count.
            progress: Is told of samples that are finished.
            minimal: Look for the nearest adversarial example within eps instead; how far that is
                `attacks.driver.distances` says. Of use where the attack's `Kind` says so.
            limits: What may be spent.

        Raises:
            AttackError: The attack is not for the threat model's norm.
        """
        problem = Problem(
            classifier,
            x,
            y,
            ids,
            threat,
            seed,
            confirm=confirm,
            minimal=minimal,
            progress=progress,
            limits=limits,
        )
        return drive(problem, self.method(config, problem))

"""The nearest adversarial example: what several searches find together.

FMN and FAB (for L1 also PDPGD) towards every class, each from the sample, FAB from near it as well;
then a random search that starts at the best of what they found. Gradients come far in many
dimensions, but the nearest point of a piecewise linear model is often in a kink or behind a small
region of its own: that takes the last part. For L0 it is sigma-zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.driver import distances
from attacks.errors import AttackError
from attacks.fab import FAB, FABConfig
from attacks.fmn import FMN, FMNConfig
from attacks.lanes import Method, drive
from attacks.pdpgd import PDPGD, PDPGDConfig
from attacks.problem import Limits, Problem
from attacks.result import AttackResult, Progress
from attacks.shorten import Shorten
from attacks.sigma_zero import SigmaZero, SigmaZeroConfig
from attacks.threat import ThreatModel


@dataclass(frozen=True)
class NearestConfig:
    """Settings of the search; every one of them is part of the protocol.

    Attributes:
        steps: Moves of a run towards a class, of FMN, FAB and PDPGD, > 3; of L0: of sigma-zero.
        restarts: Runs of FAB towards a class, >= 1. Not for L0.
        targets: Other classes to aim at, the likeliest on the clean sample first, at most those
            that there are, >= 1. Not for L0.
        queries: Forward passes of the random search, >= 0. Not for L0.
    """

    steps: int = 100
    restarts: int = 2
    targets: int = 9
    queries: int = 1000

    def __post_init__(self) -> None:
        FABConfig(self.steps, self.restarts)
        if self.targets < 1 or self.queries < 0:
            raise AttackError(
                f"targets is {self.targets} and queries {self.queries}: "
                "they must be at least 1 and 0"
            )

    def check_l0(self) -> None:
        """Raise AttackError for settings that L0 has no use for, and for too few steps."""
        for setting in fields(self):
            given = getattr(self, setting.name)
            if setting.name != "steps" and given != setting.default:
                raise AttackError(
                    f"{setting.name} is {given}: nearest in l0 is sigma-zero, which has steps alone"
                )
        SigmaZeroConfig(self.steps)


def distance_of(result: AttackResult, x: Tensor, threat: ThreatModel) -> Tensor:
    """Distance of each find in units of eps; infinite where there is none, float64, (n,)."""
    apart = distances(x, result.adversarial, threat)
    return torch.where(result.found, apart, torch.inf)


def nearest(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    config: NearestConfig,
    seed: int,
    confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> AttackResult:
    """The nearest adversarial example within `threat.eps` of each sample.

    How far that is `distance_of` says. What counts is beyond float32's rounding
    (`attacks.lanes.CLEAR`), so that the judge's float64 agrees.

    Args:
        classifier: The model, in tiles.
        x: Samples, float32, (n, *shape).
        y: True classes, int64, (n,).
        ids: Sample ids that key the noise, int64, (n,).
        threat: What the attacker may do; a large eps bounds nothing.
        config: Settings.
        seed: Seed of the noise.
        confirm: See `attacks.problem.Problem`.
        progress: Called with (samples finished, samples broken) by the last part.
        limits: What may be spent, over all parts; see `attacks.problem.Problem`.
    """
    result, runs = AttackResult.empty(x), 0
    if len(x) == 0:
        return result
    problem = Problem(
        classifier, x, y, ids, threat, seed, confirm=confirm, minimal=True, limits=limits
    )
    every = torch.arange(len(x), device=x.device)
    classes = problem.clean.shape[1]

    def look(method: Method) -> None:
        nonlocal runs
        if limits is not None:
            problem.limits = limits.left(every, result.forwards)
        other = drive(problem, method)
        nearer = other.found & (distance_of(other, x, threat) < distance_of(result, x, threat))
        numbered = replace(other, found=nearer, restart=other.restart + runs)
        result.add(numbered, every)
        runs += method.runs

    if threat.norm == "l0":
        problem.progress = progress
        look(SigmaZero(SigmaZeroConfig(config.steps), threat, classes))
        return result
    look(FMN(FMNConfig(config.steps, targets=config.targets), threat, classes))
    if threat.norm == "l1":
        look(PDPGD(PDPGDConfig(config.steps, config.targets), threat, classes))
    problem.progress = None if config.queries else progress
    look(FAB(FABConfig(config.steps, config.restarts, config.targets), threat, classes, len(x)))
    if config.queries:
        problem.progress = progress
        look(Shorten(result.adversarial, result.found, config.queries, threat))
    return result

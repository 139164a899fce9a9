"""The attacks by name: their settings, what they need to know of a model, and how to run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from attacks.apgd import APGDConfig, apgd
from attacks.halving import HalvingConfig, halving
from attacks.pgd import PGDConfig, pgd
from attacks.result import AttackResult
from attacks.threat import NORMS, Norm

Knowledge = Literal["white-box", "score", "decision", "none"]
"""What an attacker knows: gradients, logits, the predicted class, or nothing of the model."""
AttackConfig = PGDConfig | APGDConfig | HalvingConfig
"""Settings of an attack; their type says which."""


@dataclass(frozen=True)
class Kind:
    """An attack.

    Attributes:
        name: Its name in records and on the command line.
        config: Type of its settings.
        run: `run(classifier, x, y, ids, threat, config, seed, confirm=, progress=)`.
        passes: Most forward passes of a sample, from its settings and the number of classes.
        knowledge: What it needs to know.
        norms: The norms it is for.
    """

    name: str
    config: type[Any]
    run: Callable[..., AttackResult]
    passes: Callable[[Any, int], int]
    knowledge: Knowledge = "white-box"
    norms: tuple[Norm, ...] = NORMS


def _of_runs(config: PGDConfig | APGDConfig, classes: int) -> int:
    targets = config.targets if isinstance(config, APGDConfig) else 0
    return (config.steps + 1) * config.restarts * max(1, min(targets, classes - 1))


def _of_rounds(config: HalvingConfig, classes: int) -> int:
    return sum(targets * (steps + 1) for targets, steps in config.plan(classes))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("pgd", PGDConfig, pgd, _of_runs),
        Kind("apgd", APGDConfig, apgd, _of_runs),
        Kind("apgd-halving", HalvingConfig, halving, _of_rounds),
    )
}


def kind_of(config: AttackConfig) -> Kind:
    """The attack that settings are for."""
    return next(kind for kind in KINDS.values() if type(config) is kind.config)

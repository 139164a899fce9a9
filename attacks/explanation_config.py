"""Settings of attacks on explanations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from attacks.errors import AttackError

Aim = Literal["measure", "mass-centre"]
AIMS: tuple[Aim, ...] = get_args(Aim)


@dataclass(frozen=True)
class ExplanationAttackConfig:
    """Settings; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of one restart, >= 1.
        restarts: Independent runs from random points, >= 1. The first, third ... go on from there
            to where many ReLUs have changed sides before they begin, as far as there are any and
            inputs alone may change.
        step_size: Length of the first step in units of eps (of gamma, where weights alone may
            change), > 0; None is a half of it. Steps shrink linearly to a tenth.
        surrogate: Sharpness beta of the softplus that stands for ReLU while searching; None
            searches on the net itself, where a gradient has none of its own.
        stop: Whether a sample is left alone once it is bent beyond the criterion's threshold.
            Otherwise the largest distance is looked for to the end.
        aim: What is raised: a stand-in for the criterion's "measure", or the distance that the
            "mass-centre" of the explanation moves (Ghorbani et al., AAAI 2019). The criterion says
            what counts in either case.
        keep_logits: Weight of the change of the logits in an attack towards a map, >= 0
            (Dombrowski et al., NeurIPS 2019), next to the distance from the map.
    """

    steps: int = 50
    restarts: int = 1
    step_size: float | None = None
    surrogate: float | None = 50.0
    stop: bool = False
    aim: Aim = "measure"
    keep_logits: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise AttackError(
                f"steps is {self.steps} and restarts {self.restarts}: both must be at least 1"
            )
        for name in ("step_size", "surrogate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise AttackError(f"{name} is {value}: it must be positive and finite")
        if self.aim not in AIMS:
            raise AttackError(f"no aim '{self.aim}': use one of {', '.join(AIMS)}")
        if not 0 <= self.keep_logits < math.inf:
            raise AttackError(f"keep_logits is {self.keep_logits}: it must be finite and >= 0")

    def first_step(self, radius: float) -> float:
        """The first step's length in parts of the radius."""
        return 0.5 if self.step_size is None or radius == 0 else self.step_size / radius

"""What a run needs of a prover, and what a user may ask of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from torch import Tensor, nn

from attacks.threat import ThreatModel
from certify.result import Certificates
from robustbench_c.errors import UsageError, did_you_mean

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown", "complete")
"""Certificates, cheapest first."""

CASCADE = "cascade"
"""All of them, each on what those before it and the attacks between them left open."""


@dataclass(frozen=True)
class Budget:
    """How much work a certificate may spend.

    Attributes:
        iterations: Slope steps of alpha-crown.
        subproblems: Subproblems of complete, for each sample.
        seconds: Time for each sample, or None. What it ends is not reproducible.
    """

    iterations: int = 20
    subproblems: int = 2000
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.subproblems < 1:
            raise UsageError(
                f"a certificate of {self.iterations} iterations and {self.subproblems} "
                "subproblems: both have to be at least 1"
            )
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(
                f"a certificate of {self.seconds} seconds: they have to be positive and finite"
            )


class Certifier(Protocol):
    """Proves samples of one model robust."""

    def certify(
        self,
        method: str,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        threat: ThreatModel,
        budget: Budget,
        seed: int,
    ) -> Certificates:
        """Try to prove each sample by one of `METHODS`."""
        ...


MakeCertifier = Callable[[nn.Module, Tensor], Certifier]
"""From a model and one sample (1, *shape) to its prover; refuses what it has no rule for."""


def make_certifier(model: nn.Module, x: Tensor) -> Certifier:
    """Return the bound engine for a model."""
    engine = importlib.import_module("certify.methods")
    return cast(Certifier, engine.Certifier(model, x))


@dataclass(frozen=True)
class CertifyConfig:
    """What to prove, and how.

    Attributes:
        method: One of `METHODS`, or "cascade".
        budget: How much work it may spend.
        radius: Whether to look for each sample's certified radius as well.
        cross_check: Whether to compare with auto_LiRPA.
    """

    method: str
    budget: Budget = field(default_factory=Budget)
    radius: bool = False
    cross_check: bool = False

    def __post_init__(self) -> None:
        known = [*METHODS, CASCADE]
        if self.method not in known:
            raise UsageError(f"no certificate '{self.method}'; {did_you_mean(self.method, known)}")

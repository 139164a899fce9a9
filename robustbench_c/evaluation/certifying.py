"""What a run needs of a prover, and what a user may ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from attacks.threat import ThreatModel
from certify import methods
from certify.methods import METHODS, Budget, Method
from certify.result import Certificates
from robustbench_c.errors import UsageError, did_you_mean

__all__ = [
    "CASCADE",
    "METHODS",
    "Budget",
    "Certifier",
    "CertifyConfig",
    "Method",
    "make_certifier",
    "numbers_of",
]

CASCADE = "cascade"
"""All of them, each on what those before it and the attacks between them left open."""


class Certifier(Protocol):
    """Proves samples of one model robust."""

    def certify(
        self,
        method: Method,
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
    return methods.Certifier(model, x)


def numbers_of(certifier: Certifier | None) -> int:
    """How many numbers the bound engine knows of a sample; 0 of a prover that is not ours."""
    numbers = getattr(certifier, "numbers", 0)
    return numbers if isinstance(numbers, int) else 0


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

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that run, cheapest first."""
        return tuple(m for m in METHODS if self.method in (m, CASCADE))

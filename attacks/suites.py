"""Attacks that run one after the other, each on the samples that those before it left.

A suite that is `minimal` looks for the nearest adversarial example of every sample instead: each of
its attacks runs on all of them, and the smallest distance counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from attacks.apgd import APGDConfig
from attacks.fab import FABConfig
from attacks.fmn import FMNConfig
from attacks.halving import HalvingConfig
from attacks.pdpgd import PDPGDConfig
from attacks.registry import AttackConfig, kind_of
from attacks.sigma_zero import SigmaZeroConfig
from attacks.square import SquareConfig
from attacks.threat import AnyNorm


@dataclass(frozen=True)
class Suite:
    """A sequence of attacks.

    Attributes:
        name: Of the suite.
        parts: Name and settings of each attack, in the order they run.
        minimal: Whether it looks for nearest adversarial examples; then those of its parts run
            that are for the norm.
    """

    name: str
    parts: tuple[tuple[str, AttackConfig], ...]
    minimal: bool = False

    def parts_for(self, norm: AnyNorm) -> tuple[tuple[str, AttackConfig], ...]:
        """The attacks that run in a norm; all where none is for it."""
        fitting = tuple(part for part in self.parts if norm in kind_of(part[1]).norms)
        return fitting if self.minimal and fitting else self.parts


AUTO = Suite(
    "auto",
    (
        ("apgd", APGDConfig(steps=20, loss="margin")),
        ("apgd-halving", HalvingConfig(steps=8)),
    ),
)
"""Cheapest breaks first: nearly all that falls at all falls within a few steps, and what is left
gets a search that puts its gradients where the margin is smallest."""

AUTOATTACK = Suite(
    "autoattack",
    (
        ("apgd-ce", APGDConfig()),
        ("apgd-t", APGDConfig(loss="dlr", targets=9)),
        ("fab-t", FABConfig(targets=9)),
        ("square", SquareConfig()),
    ),
)
"""The standard suite of AutoAttack (Croce and Hein, ICML 2020) in its published form."""

NEAREST = Suite(
    "nearest",
    (
        ("fmn-minimal", FMNConfig(targets=3)),
        ("pdpgd-minimal", PDPGDConfig(steps=100, targets=9)),
        ("fab-minimal", FABConfig(targets=9)),
        ("sigma-zero-minimal", SigmaZeroConfig()),
    ),
    minimal=True,
)
"""For each norm the searches that complement each other. Which class is nearest does not show in
the clean logits, so they aim at several by turns."""

SUITES = {suite.name: suite for suite in (AUTO, AUTOATTACK, NEAREST)}

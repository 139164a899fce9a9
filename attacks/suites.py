"""Attacks that run one after the other, each on the samples that those before it left.

A suite that is `minimal` looks for the nearest adversarial example of every sample instead: each of
its attacks runs on all of them, and the smallest distance counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from attacks.apgd import APGDConfig
from attacks.fab import FABConfig
from attacks.halving import HalvingConfig
from attacks.registry import AttackConfig
from attacks.square import SquareConfig


@dataclass(frozen=True)
class Suite:
    """A sequence of attacks.

    Attributes:
        name: Of the suite.
        parts: Name and settings of each attack, in the order they run.
        minimal: Whether it looks for the nearest adversarial example of every sample.
        closing: Further attacks, on the samples alone that the parts came near to breaking.
        near: How near: their lowest margin is at most this share of how far it fell.
    """

    name: str
    parts: tuple[tuple[str, AttackConfig], ...]
    minimal: bool = False
    closing: tuple[tuple[str, AttackConfig], ...] = ()
    near: float = 0.25


AUTO = Suite(
    "auto",
    (
        ("apgd", APGDConfig(steps=20, loss="margin")),
        ("apgd-halving", HalvingConfig(steps=8, loss="dlr", patience=0.5)),
        ("square", SquareConfig(queries=300)),
    ),
    closing=(
        ("fab-near", FABConfig(targets=4, steps=50)),
        ("square-near", SquareConfig(queries=2000)),
    ),
)
"""Cheapest breaks first: nearly all that falls at all falls within a few steps; what is left gets a
search that puts its gradients where the margin is smallest, and ends where it stays. Gradients lead
nowhere on some samples of very sparse networks: a short search without them is next. What falls to
a longer one had come near before: two attacks of other kinds close in on those few."""

AUTOATTACK = Suite(
    "autoattack",
    (
        ("apgd-ce", APGDConfig(projection="shrink")),
        ("apgd-t", APGDConfig(loss="dlr", targets=9, projection="shrink")),
        ("fab-t", FABConfig(targets=9)),
        ("square", SquareConfig(rescale=False)),
    ),
)
"""The standard suite of AutoAttack (Croce and Hein, ICML 2020) in its published form; what differs
stands in docs/attacks.md."""

SUITES = {suite.name: suite for suite in (AUTO, AUTOATTACK)}

"""The verdict on one sample, and which kind of step may give which."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

RULES_VERSION = 1
"""Version of the rules that turn the steps' rows into one verdict; part of a protocol's hash."""

CLEAN_STEP = "clean"
"""The name of the step every run starts with; no step of a protocol may take it."""

StepKind = Literal["clean", "attack", "certificate"]


class Verdict(StrEnum):
    """What is known about a sample. A sample that was not run has no verdict (null)."""

    WRONG = "wrong"
    """The clean input is misclassified."""
    BROKEN = "broken"
    """An adversarial example was found and re-checked."""
    CERTIFIED = "certified"
    """There is a proof that no adversarial example exists."""
    UNDECIDED = "undecided"
    """Every step ran, none settled it. Derived from the rows, never written into one."""
    ERROR = "error"
    """A step failed on it and no other step settled it."""


SETTLED = frozenset({Verdict.WRONG, Verdict.BROKEN, Verdict.CERTIFIED})
"""Verdicts that end the work on a sample."""

LEGAL: dict[StepKind, frozenset[Verdict]] = {
    "clean": frozenset({Verdict.WRONG, Verdict.ERROR}),
    "attack": frozenset({Verdict.BROKEN, Verdict.ERROR}),
    "certificate": frozenset({Verdict.CERTIFIED, Verdict.ERROR}),
}
"""Verdicts a row may carry, by the kind of its step; null (still open) is always legal."""

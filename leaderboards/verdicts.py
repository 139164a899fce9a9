"""The verdict on one sample, and which kind of step may give which."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

RULES_VERSION = 2
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


class Reason(StrEnum):
    """Why a certificate left a sample open: how `detail` of such a row begins."""

    UNKNOWN = "unknown"
    """The method ran to its end and could not prove it."""
    ROUNDING = "rounding"
    """Proved up to rounding: the bound does not exceed the error of the float32 evaluation."""
    TIMEOUT = "timeout"
    """A budget ended first."""
    UNCONFIRMED = "unconfirmed"
    """It named a counterexample, which did not hold when it was re-checked."""


_REASONS = {str(reason): reason for reason in Reason}


def reason_of(detail: str | None) -> Reason | None:
    """Return the reason that the detail of an open certificate row gives, or None."""
    return _REASONS.get((detail or "").split(":")[0])


SETTLED = frozenset({Verdict.WRONG, Verdict.BROKEN, Verdict.CERTIFIED})
"""Verdicts that end the work on a sample."""

LEGAL: dict[StepKind, frozenset[Verdict]] = {
    "clean": frozenset({Verdict.WRONG, Verdict.ERROR}),
    "attack": frozenset({Verdict.BROKEN, Verdict.ERROR}),
    "certificate": frozenset({Verdict.CERTIFIED, Verdict.BROKEN, Verdict.ERROR}),
}
"""Verdicts a row may carry, by the kind of its step; null (still open) is always legal."""

EXPLAINED_LEGAL: dict[StepKind, frozenset[Verdict]] = {
    "clean": frozenset({Verdict.ERROR}),
    "attack": frozenset({Verdict.BROKEN, Verdict.ERROR}),
    "certificate": frozenset({Verdict.CERTIFIED, Verdict.ERROR}),
}
"""The same of runs about explanations: misclassified samples have explanations, too."""

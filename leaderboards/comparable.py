"""Whether a run and its baseline say anything about each other."""

from __future__ import annotations

from typing import Any

from leaderboards.baseline import Baseline
from leaderboards.errors import NotComparableError
from leaderboards.verdicts import RULES_VERSION


def refuse_incomparable(baseline: Baseline, run: Baseline) -> None:
    """Raise NotComparableError, which says why, where a comparison would mean nothing."""
    old, new = baseline.data, run.data
    if old.sha256 != new.sha256:
        raise NotComparableError(
            f"other data: the baseline is about {old.name} {old.split} ({old.sha256[:12]}), "
            f"the run about {new.name} {new.split} ({new.sha256[:12]})"
        )
    if old.ids != new.ids:
        raise NotComparableError(
            f"other samples: {old.ids[:40]} in the baseline, {new.ids[:40]} in the run"
        )
    if {baseline.rules, run.rules} != {RULES_VERSION}:
        raise NotComparableError(
            f"other verdict rules: {baseline.rules} in the baseline, {run.rules} in the run, "
            f"{RULES_VERSION} in this version; make the baseline again from its run"
        )
    if baseline.protocol_sha256 != run.protocol_sha256:
        told = _difference(baseline.protocol.model_dump(), run.protocol.model_dump())
        raise NotComparableError(f"other protocols: {told}")
    if (baseline.classes() != run.classes()).any() or old.classes != new.classes:
        raise NotComparableError("the same data, but other labels: one of the two is not genuine")


def refuse_half_diagnosed(baseline: Baseline, run: Baseline) -> None:
    """Raise NotComparableError where red flags can be new and nobody looked at one of the two."""
    if run.flags is None and baseline.flags is not None:
        raise NotComparableError(
            "the run was not diagnosed and the baseline was, so nothing is known of new red flags: "
            "make the run with diagnostics (without --no-diagnose), or --allow-unreliable"
        )
    if run.flags and baseline.flags is None:
        raise NotComparableError(
            f"the run has red flags ({', '.join(run.flags)}) and the baseline was not diagnosed, "
            "so nobody knows whether they are new: make the baseline with diagnostics (without "
            "--no-diagnose), or --allow-unreliable"
        )


def _difference(old: Any, new: Any, place: str = "") -> str:
    """The first thing in which two protocols differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return _difference(old.get(key), new.get(key), f"{place}.{key}".lstrip("."))
    if place == "steps":
        names = [[step["name"] for step in steps] for steps in (old, new)]
        if names[0] == names[1]:
            a, b = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
            return _difference(a, b, f"step {a['name']}")
        old, new = (", ".join(each) or "none" for each in names)
    return f"{place} is {old} in the baseline, {new} in the run"

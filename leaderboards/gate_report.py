"""What the gate found, for a pull request, for a CI system and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import Any

from leaderboards.baseline import Baseline
from leaderboards.gate import Flip, Outcome
from leaderboards.junit import Case, junit
from leaderboards.markdown import inert, table
from leaderboards.rates import Rate
from leaderboards.verdicts import CLEAN_STEP

SUITE = "robustness"
HEADER = ("metric", "baseline", "run", "change", "lost", "gained", "p", "adjusted p", "verdict")
FLIP_HEADER = ("sample", "class", "before", "after", "lost", "gained")
_IN_MARKDOWN = 100
"""Flipped samples that are shown; GitHub takes comments of at most 65,536 characters."""


def rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return the metrics as the cells of a table under `HEADER`."""
    return [
        (
            metric.told,
            _rate(metric.before),
            _rate(metric.after),
            f"{100 * (metric.gained - metric.lost) / metric.before.n:+.2f} points",
            str(metric.lost),
            str(metric.gained),
            f"{metric.p:.2g}",
            f"{metric.adjusted:.2g}",
            metric.verdict,
        )
        for metric in outcome.metrics
    ]


def flip_row(flip: Flip) -> tuple[str, ...]:
    """Return a sample as cells under `FLIP_HEADER`; the class is the text of a stranger."""
    sides = (flip.before, flip.before_by), (flip.after, flip.after_by)
    told = [f"{v} by {step}" if step and step != CLEAN_STEP else v for v, step in sides]
    return str(flip.sample_id), flip.label, *told, ", ".join(flip.lost), ", ".join(flip.gained)


def rule(outcome: Outcome) -> str:
    """Return what makes a run fail, in words."""
    limits, k = outcome.limits, len(outcome.metrics)
    many = f", Holm-corrected over {k} metrics" if k > 1 else ""
    said = f"fails if significantly worse (one-sided exact McNemar{many}, alpha {limits.alpha:g})"
    if limits.tolerance:
        said += f" by more than {limits.tolerance:g} points"
    if limits.max_lost is not None:
        said += f"; or if more than {limits.max_lost} samples are lost in one metric"
    flags = not limits.allow_unreliable and "robust" in [m.name for m in outcome.metrics]
    return said + ("; or by a new red flag" if flags and outcome.run.flags is not None else "")


def verdict_line(outcome: Outcome) -> str:
    """Return how it ended, in one line."""
    return f"regressed: {'; '.join(outcome.failures)}" if outcome.failures else "no regression"


def gate_markdown(outcome: Outcome) -> str:
    """Return the summary for a pull request."""
    run, baseline = outcome.run, outcome.baseline
    threat = run.protocol.threat
    parts = [
        f"### Robustness gate: {'**regressed**' if outcome.failures else 'no regression'}\n",
        f"{_who(run)} against the baseline {_who(baseline)}, on {run.data.samples} samples of "
        f"{inert(run.data.name)}, {threat.norm} eps {threat.eps:g}.\n",
        table(HEADER, rows(outcome), numbers=range(3, 8)),
    ]
    parts += [f"- {escape(line)}\n" for line in outcome.failures]
    if outcome.flips:
        shown = outcome.flips[:_IN_MARKDOWN]
        cells = [flip_row(flip) for flip in shown]
        more = len(outcome.flips) - len(shown)
        parts += [
            f"<details><summary>{len(outcome.flips)} samples flipped</summary>\n",
            table(FLIP_HEADER, [(i, inert(c, 40), *rest) for i, c, *rest in cells], numbers=(0,)),
            *([f"and {more} more, in the JSON file\n"] if more else []),
            "</details>\n",
        ]
    notes = (rule(outcome), *outcome.notes)
    parts.append("".join(f"<sub>{inert(note, 600)}</sub><br>\n" for note in notes))
    return "\n".join(parts)


def gate_json(outcome: Outcome) -> bytes:
    """Return everything that was found, all flipped samples included."""
    content: dict[str, Any] = {
        "schema_version": 1,
        "regressed": bool(outcome.failures),
        "failures": outcome.failures,
        "limits": asdict(outcome.limits),
        "baseline": _side(outcome.baseline),
        "run": _side(outcome.run),
        "protocol_sha256": outcome.run.protocol_sha256,
        "samples": outcome.run.data.samples,
        "metrics": [
            {
                **{k: v for k, v in vars(metric).items() if k not in ("before", "after")},
                "before": metric.before.model_dump(),
                "after": metric.after.model_dump(),
                "verdict": metric.verdict,
            }
            for metric in outcome.metrics
        ],
        "flips": [asdict(flip) for flip in outcome.flips],
        "new_flags": outcome.new_flags,
        "notes": outcome.notes,
    }
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def gate_junit(outcome: Outcome) -> bytes:
    """Return a test for each metric."""
    cases = [
        Case(
            metric.told,
            failure="; ".join(metric.failures) or None,
            text="\n".join(
                " | ".join(flip_row(flip)) for flip in outcome.flips if metric.told in flip.lost
            ),
        )
        for metric in outcome.metrics
    ]
    run, baseline = outcome.run, outcome.baseline
    properties = {
        "baseline": baseline.model.name,
        "baseline.sha256": baseline.model.sha256,
        "model": run.model.name,
        "model.sha256": run.model.sha256,
        "data": run.data.name,
        "samples": str(run.data.samples),
        "protocol_sha256": run.protocol_sha256,
        "rule": rule(outcome),
    }
    return junit(SUITE, cases, properties)


def not_comparable(suite: str, why: str) -> tuple[str, bytes, bytes]:
    """Return the Markdown, JUnit and JSON of a gate that could not be run."""
    markdown = f"### {suite.capitalize()} gate: **not comparable**\n\n{inert(why, 600)}\n"
    content = {"schema_version": 1, "regressed": None, "not_comparable": why}
    return (
        markdown,
        junit(suite, [Case("comparable", error=why)], {}),
        (json.dumps(content, indent=1) + "\n").encode(),
    )


def _rate(rate: Rate) -> str:
    return f"{rate.value:.2%} [{rate.lower:.2%}, {rate.upper:.2%}]"


def _who(side: Baseline) -> str:
    return f"{inert(side.model.name)} ({side.model.sha256[:12]})"


def _side(side: Baseline) -> dict[str, Any]:
    return {
        "run_id": side.run_id,
        "model": side.model.name,
        "model_sha256": side.model.sha256,
        "identity": side.identity,
        "flags": side.flags,
    }

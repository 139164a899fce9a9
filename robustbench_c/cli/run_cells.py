"""A run as the cells of a table of runs."""

from __future__ import annotations

from rich.text import Text

from leaderboards.manifest import Manifest, Protocol
from leaderboards.rates import Rate
from leaderboards.summary import Summary
from robustbench_c.cli.flags import reliability

HEADS = ("of", "state", "samples", "clean", "robust", "certified", "reliable")


def run_cells(manifest: Manifest, found: Summary) -> tuple[str | Text, ...]:
    """Return what `HEADS` say of a run."""
    rates = (found.clean_accuracy, found.robust_accuracy, found.certified_accuracy)
    what = manifest.protocol.explanation
    if (bent := found.explanation) is not None:  # robust: not bent, nor failed on
        held = found.counts.certified + found.counts.undecided
        left = bent.bent and Rate.of(held, bent.bent.n)
        rates = (found.clean_accuracy, left, bent.certified)
    return (
        _subject(manifest.protocol) if what is None else what.kind,
        "complete" if found.complete else "unfinished",
        str(found.samples),
        *("-" if rate is None else f"{rate.value:.2%}" for rate in rates),
        reliability(found),
    )


def _subject(protocol: Protocol) -> str:
    if protocol.corruption is not None:
        return "corruption"
    return "prediction" if protocol.transformation is None else "transformation"

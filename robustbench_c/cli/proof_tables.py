"""What was proved, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from leaderboards.distances import Radii
from leaderboards.errors import one_line
from leaderboards.summary import Reasons, Summary
from robustbench_c.cli.console import wide_console

if TYPE_CHECKING:
    from robustbench_c.evaluation.crosscheck import CrossCheck


_RADIUS = "radius"
"""Name, in `evaluation.protocol_steps`, of the step that is about all samples that are right."""


def print_proofs(summary: Summary) -> None:
    """Print what each step settled, and the certified radii; nothing of a run without proofs."""
    if summary.undecided_by is None:
        return
    wide_console().print(_steps(summary))
    if summary.radius is not None:
        wide_console().print(_radii(summary.radius))


def reasons_line(reasons: Reasons | None) -> str:
    """Why samples are undecided: "3 unknown, 1 timeout", or an empty text."""
    counts = {} if reasons is None else reasons.model_dump()
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _steps(summary: Summary) -> Table:
    table = Table("step")
    for name in ("tried", "broken", "certified", "left open", "errors", "audited", "work", "s"):
        table.add_column(name, justify="left" if name == "left open" else "right")
    for step in summary.steps[1:]:
        audited = 0 if step.name == _RADIUS else step.audited
        table.add_row(
            one_line(step.name),
            *(str(n) for n in (step.samples - audited, step.broken, step.certified)),
            reasons_line(step.left_open),
            *(str(n) if n else "" for n in (step.errors, audited, step.work)),
            f"{step.seconds:.1f}",
        )
    return table


def _radii(radii: Radii) -> Table:
    table = Table("certified radius", *list(Radii.model_fields)[1:])
    quantiles = [value for name, value in radii.model_dump().items() if name != "samples"]
    table.add_row(f"{radii.samples} samples", *(f"{value:.4g}" for value in quantiles))
    return table


def print_cross_check(result: CrossCheck) -> None:
    """Print our certificates beside auto_LiRPA's, and why some have none."""
    if result.compared:
        table = Table("auto_LiRPA", "samples", "ours", "theirs", "both", "tighter", "looser", "s")
        for entry in result.compared:
            counts = (entry.samples, entry.ours, entry.theirs, entry.both)
            table.add_row(
                one_line(entry.method),
                *map(str, counts),
                f"{entry.tighter:.3g}",
                f"{entry.looser:.3g}",
                f"{entry.our_seconds:.2f} / {entry.their_seconds:.2f}",
            )
        wide_console().print(table)
    for notice in result.notices:
        print(one_line(f"notice: {notice}"))

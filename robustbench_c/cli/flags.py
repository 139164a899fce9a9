"""Signs that a run's attacks failed, as `robust-eval` and `robust-runs` show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from leaderboards.store import RunStore
    from leaderboards.summary import Summary

NoDiagnose = Annotated[
    bool,
    typer.Option("--no-diagnose", help="Do not look for signs that the attack failed."),
]


def warn(summary: Summary, console: Console) -> None:
    """Print one red line for each red flag."""
    from rich.text import Text

    from leaderboards.errors import one_line

    for flag in summary.flags or ():
        line = one_line(
            f"flag {flag.name}: {flag.value:.1%} of {flag.samples} samples, limit "
            f"{flag.limit:.0%}: {flag.meaning}"
        )
        console.print(Text(line, style="red"), soft_wrap=True)


def marked(text: str, summary: Summary) -> Text:
    """A robust accuracy, which is said to be unreliable where it is."""
    from rich.text import Text

    if summary.reliable is False:
        return Text(f"{text} unreliable", style="red")
    return Text(text)


def reliability(summary: Summary) -> Text:
    """Whether a run is reliable, and the flags by which it is not, as a cell of a table."""
    from rich.text import Text

    if summary.flags is None:
        return Text("-")
    names = ", ".join(flag.name for flag in summary.flags)
    return Text(f"no: {names}", style="red") if names else Text("yes")


def diagnosed_lines(store: RunStore, summary: Summary) -> list[str]:
    """What the diagnostics looked at, gave and took, as a line; none where there are none."""
    from leaderboards.diagnostics import read_diagnostics

    found = read_diagnostics(store)
    if found is None:
        return []
    raised = len(summary.flags or ())
    total = summary.cost.seconds + found.seconds
    return [
        f"diagnostics: {raised or 'no'} red {'flag' if raised == 1 else 'flags'} on "
        f"{len(found.looked_at)} samples, {found.seconds:.1f} s "
        f"({found.seconds / total if total else 0:.0%} of the time)"
    ]

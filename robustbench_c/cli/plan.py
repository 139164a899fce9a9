"""`--plan`: what a command would take, on this machine, before it is begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from robustbench_c.evaluation.estimate import Estimate

Plan = Annotated[
    bool,
    typer.Option("--plan", help="Do nothing: tell what it would take (time, memory) here."),
]


def show_plan(estimate: Estimate) -> None:
    """Print the estimate of one command."""
    from leaderboards.report.words import duration

    print(
        f"would take about {duration(estimate.likely)} (at most {duration(estimate.most)}) of one "
        f"worker here, and {in_bytes(estimate.memory)} of memory"
    )


def in_bytes(size: int) -> str:
    """A size as `640 MB`, `1.2 GB`."""
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"

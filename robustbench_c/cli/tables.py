"""A run as a table for people."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from leaderboards.errors import one_line
from leaderboards.manifest import Manifest
from leaderboards.summary import Rate, Summary


def wide_console() -> Console:
    """Standard output, for the texts of strangers; wide where it is no terminal."""
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False)


def _percent(rate: Rate | None) -> tuple[str, str, str]:
    if rate is None:
        return "-", "", ""
    return (
        f"{rate.value:.2%}",
        f"[{rate.lower:.2%}, {rate.upper:.2%}]",
        f"{rate.k} of {rate.n}",
    )


def run_table(manifest: Manifest, summary: Summary) -> Table:
    """The closing table: rates with intervals, verdicts, cost."""
    threat = manifest.protocol.threat
    unit = "" if threat.eps_unit == "input" else " of each feature's range"
    table = Table(
        title=one_line(f"{manifest.model.name} on {manifest.data.name}")
        + f", {threat.norm} eps {threat.eps:g}{unit}",
        title_justify="left",
    )
    for name, justify in (("", "left"), ("accuracy", "right"), ("95% interval", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("samples", justify="right")
    table.add_row("clean", *_percent(summary.clean_accuracy))
    for step in manifest.protocol.steps:
        settings = step.parameters
        table.add_row(
            f"robust ({step.name}-{settings['steps']}x{settings['restarts']}, "
            f"step {settings['step_size']:g}, {settings['loss']})",
            *_percent(summary.robust_accuracy),
        )
    if summary.certified_accuracy is not None:
        table.add_row("certified", *_percent(summary.certified_accuracy))
    return table


def cost_line(summary: Summary) -> str:
    """What the run cost, in one line."""
    cost = summary.cost
    if cost.forwards_per_sample is None:
        return "no sample was run"
    return (
        f"cost: {cost.forwards_per_sample:.1f} forward and {cost.backwards_per_sample:.1f} "
        f"backward passes per sample, {cost.seconds:.1f} s in all"
    )


def verdict_line(summary: Summary) -> str:
    """The number of samples with each verdict, in one line."""
    counts = {k: v for k, v in summary.counts.model_dump().items() if v}
    return "verdicts: " + ", ".join(f"{v} {k.replace('_', ' ')}" for k, v in counts.items())

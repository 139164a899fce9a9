"""A run as a table for people."""

from __future__ import annotations

import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from leaderboards.errors import one_line
from leaderboards.manifest import Manifest, StepInfo
from leaderboards.store import RunStore
from leaderboards.summary import Rate, Summary
from leaderboards.verdicts import CLEAN_STEP


def wide_console() -> Console:
    """Standard output, for the texts of strangers; wide where it is no terminal."""
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False)


def percent(rate: Rate | None) -> tuple[str, str, str]:
    """A rate as the cells of a table: share, interval, counts."""
    if rate is None:
        return "-", "", ""
    return (
        f"{rate.value:.2%}",
        f"[{rate.lower:.2%}, {rate.upper:.2%}]",
        f"{rate.k} of {rate.n}",
    )


def print_run(store: RunStore, summary: Summary) -> None:
    """Print the table of a run, its verdicts, its cost, and what was unusual."""
    model, data, threat = store.manifest.model, store.manifest.data, store.manifest.protocol.threat
    unit = "" if threat.eps_unit == "input" else " of each feature's range"
    print(one_line(f"{model.name} on {data.name}, {threat.norm} eps {threat.eps:g}{unit}"))
    wide_console().print(_table(store.manifest, summary))
    for line in (_verdict_line(summary), *_detail_lines(store), _cost_line(summary)):
        print(line)


def _table(manifest: Manifest, summary: Summary) -> Table:
    """Rates with their intervals."""
    table = Table()
    for name, justify in (("", "left"), ("accuracy", "right"), ("95% interval", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("samples", justify="right")
    table.add_row("clean", *percent(summary.clean_accuracy))
    attacks = [_attack(step) for step in manifest.protocol.steps if step.kind == "attack"]
    if attacks:
        table.add_row(f"robust ({' + '.join(attacks)})", *percent(summary.robust_accuracy))
    if summary.certified_accuracy is not None:
        table.add_row("certified", *percent(summary.certified_accuracy))
    return table


def _cost_line(summary: Summary) -> str:
    """What the run cost, in one line."""
    cost = summary.cost
    if cost.forwards_per_sample is None:
        return "no sample was run"
    return (
        f"cost: {cost.forwards_per_sample:.1f} forward and {cost.backwards_per_sample:.1f} "
        f"backward passes per sample, {cost.seconds:.1f} s in all"
    )


def _attack(step: StepInfo) -> str:
    """An attack with what its strength hangs on: "pgd-40x5, step 0.025, ce"."""
    settings = {
        name: f"{value:.4g}" if isinstance(value, float) else str(value)
        for name, value in step.parameters.items()
    }
    try:
        shown = "{steps}x{restarts}, step {step_size}, {loss}".format(**settings)
    except KeyError:  # an attack of others
        return one_line(step.name)
    goal = settings.get("goal", "untargeted")
    return one_line(f"{step.name}-{shown}" + ("" if goal == "untargeted" else f", {goal}"))


def _verdict_line(summary: Summary) -> str:
    """The number of samples with each verdict, in one line."""
    counts = {k: v for k, v in summary.counts.model_dump().items() if v}
    return "verdicts: " + ", ".join(f"{v} {k.replace('_', ' ')}" for k, v in counts.items())


def _detail_lines(store: RunStore) -> list[str]:
    """What the rows of the attacks say of samples that ended in an unusual way, with counts."""
    details = [
        store.read_step(step)["detail"].dropna() for step in store.steps if step != CLEAN_STEP
    ]
    counts = Counter(detail for column in details for detail in column)
    return [one_line(f"{count} samples: {detail}") for detail, count in sorted(counts.items())]

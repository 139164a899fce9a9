"""`robust-runs status`: how far a run is, and who is at it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leaderboards.errors import one_line
from leaderboards.report.words import duration
from robustbench_c.cli.console import wide_console

if TYPE_CHECKING:
    from leaderboards.watching import RunState, StepState, WorkerState


def shown(state: RunState) -> Group:
    """What people see of a run at work."""
    parts: list[Table | Text] = [_steps(state)]
    if state.workers:
        parts.append(workers_table(state.workers))
    words: str = state.state
    if state.state == "running":
        words += f", {sum(worker.doing != 'lost' for worker in state.workers)} at it"
    if state.told is not None:
        words += f": {one_line(state.told)}"
    if state.wall is not None:
        words += f"; {duration(state.wall)} of wall time so far"
    lines = [f"state: {words}", *(f"notice: {one_line(each)}" for each in state.problems)]
    return Group(*parts, *map(Text, lines))


def _steps(state: RunState) -> Table:
    table = Table("step", title="steps", title_justify="left")
    for name in ("shards", "samples", "settled", "s", "samples/s each", "workers", "ETA"):
        table.add_column(name, justify="right")
    for step in state.steps:
        table.add_row(
            one_line(step.name),
            _of(step.shards, step.all_shards),
            _of(step.samples, step.all_samples),
            str(step.settled),
            f"{step.seconds:.1f}",
            "" if step.rate is None else f"{step.rate:.3g}",
            str(step.workers) if step.workers else "",
            eta(step),
        )
    return table


def _of(done: int, total: int | None) -> str:
    return str(done) if total is None else f"{done} of {total}"


def eta(step: StepState) -> str:
    """The time that a step may still take, where that can be said."""
    if step.left is None:
        return ""
    seconds = max(1, round(step.left))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def workers_table(workers: tuple[WorkerState, ...]) -> Table:
    """Who is at it."""
    table = Table("host", "pid", "", "step", "shard", "since (UTC)", title="workers")
    table.title_justify = "left"
    table.add_column("heartbeat", justify="right")
    for worker in workers:
        doing = Text("looks dead", style="red") if worker.doing == "lost" else Text(worker.doing)
        table.add_row(
            one_line(worker.host) or "?",
            str(worker.pid or "?"),
            doing,
            one_line(worker.step or ""),
            one_line((worker.shard or "").removesuffix(".parquet")),
            f"{worker.since:%H:%M:%S}" if worker.since else "",
            f"{duration(worker.heartbeat)} ago",
        )
    return table


def as_json(state: RunState) -> str:
    """The same for programs."""
    told: dict[str, Any] = asdict(state) | {"summary": state.summary.model_dump(mode="json")}
    for worker in told["workers"]:
        worker["since"] = worker["since"] and worker["since"].isoformat()
    return json.dumps({"run_id": state.summary.run_id, **told}, indent=1)


def follow(look: Callable[[], RunState], seconds: float) -> RunState:
    """Show a run again and again until nobody is at it; returns how it is then."""
    state = look()
    console = wide_console()
    with Live(shown(state), console=console, auto_refresh=False) as live:
        while state.state == "running":
            time.sleep(seconds)
            state = look()
            live.update(shown(state), refresh=True)
    return state

"""`robust-runs status`: how far a run or a suite is, and who is at it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leaderboards.errors import one_line
from leaderboards.report.words import duration
from robustbench_c.cli.console import few, wide_console

if TYPE_CHECKING:
    from leaderboards.watching import RunState, StepState, WorkerState
    from robustbench_c.suites.watching import SuiteState

_Seen = TypeVar("_Seen", "RunState", "SuiteState")
_FIRST = ("at work", "failed", "interrupted")
"""Stages of the jobs that are listed, in this order; the others are counted."""


def shown(state: RunState) -> Group:
    """What people see of a run at work."""
    parts: list[Table | Text] = [_steps(state)]
    workers, more = few(sorted(state.workers, key=lambda each: each.doing == "lost"), "workers")
    if workers:
        parts += [workers_table(workers), *map(Text, more)]
    words: str = state.state
    if state.state == "running":
        words += f", {sum(worker.doing != 'lost' for worker in state.workers)} at it"
    if state.told is not None:
        words += f": {one_line(state.told)}"
    if state.wall is not None:
        words += f"; at least {duration(state.wall)} of wall time so far"
    lines = [f"state: {words}", *_notices(state.problems)]
    return Group(*parts, *map(Text, lines))


def _notices(problems: Sequence[str]) -> list[str]:
    shown, more = few(problems, "problems")
    return [*(f"notice: {one_line(each)}" for each in shown), *more]


def _steps(state: RunState) -> Table:
    table = Table("step", title="steps", title_justify="left", box=None)
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


def workers_table(workers: Sequence[WorkerState]) -> Table:
    """Who is at it."""
    table = Table("host", "pid", "", "step", "shard", "since (UTC)", title="workers", box=None)
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


def shown_suite(state: SuiteState) -> Group:
    """What people see of a suite at work."""
    jobs = Table(
        "job", "", "at it", "since (UTC)", title="jobs not done", title_justify="left", box=None
    )
    open_ = [job for job in state.jobs if job.stage in _FIRST]
    listed, more_jobs = few(sorted(open_, key=lambda job: _FIRST.index(job.stage)), "jobs")
    for job in listed:
        doing = f"failed: {one_line(job.error or '', 200)}" if job.stage == "failed" else job.stage
        at_it = f"{one_line(job.host)} {job.pid}" if job.host and not job.lost else ""
        since = f"{job.since:%H:%M:%S}" if job.since and at_it else ""
        jobs.add_row(one_line(job.command, 300) or job.id, doing, at_it, since)
    runs = Table("run", "step", title="runs at work", title_justify="left", box=None)
    for name in ("shards", "samples", "workers", "ETA"):
        runs.add_column(name, justify="right")
    at_work = [(run, step) for run in state.runs.values() for step in run.steps if step.workers]
    begun, more_runs = few(at_work, "steps of runs")
    for run, step in begun:
        done = _of(step.shards, step.all_shards), _of(step.samples, step.all_samples)
        runs.add_row(run.summary.run_id, step.name, *done, str(step.workers), eta(step))
    seconds = sum(job.seconds or 0.0 for job in state.jobs)
    lines = [
        f"{len(state.jobs)} jobs: {state.count('done')} done, {state.count('failed')} failed, "
        f"{state.count('at work')} at work, {state.count('interrupted')} interrupted, "
        f"{state.count('left')} left; {duration(seconds)} for those that ended",
        *_notices(state.problems),
    ]
    if state.others:
        jobs_ = "job" if state.others == 1 else "jobs"
        lines.append(f"{state.others} more {jobs_}, of other suites or options, in this folder")
    lines.append(f"state: {state.state}")
    parts: list[Table | Text] = []
    for table, more in ((jobs, more_jobs), (runs, more_runs)):
        if table.row_count:
            parts += [table, *map(Text, more)]
    return Group(*parts, *map(Text, lines))


def as_json(state: RunState) -> str:
    """A run for programs."""
    return json.dumps(_run(state), indent=1, default=_time)


def suite_as_json(state: SuiteState) -> str:
    """A suite for programs."""
    runs = [_run(run) for run in state.runs.values()]
    told = {"state": state.state, "jobs": [asdict(job) for job in state.jobs]}
    more = {"others": state.others, "runs": runs, "problems": state.problems}
    return json.dumps(told | more, indent=1, default=_time)


def _run(state: RunState) -> dict[str, Any]:
    summary = state.summary.model_dump(mode="json")
    return {"run_id": state.summary.run_id} | asdict(state) | {"summary": summary}


def _time(value: datetime) -> str:
    return value.isoformat()


def follow(look: Callable[[], _Seen], show: Callable[[_Seen], Group], seconds: float) -> _Seen:
    """Show a run or a suite again and again until nobody is at it; returns how it is then."""
    state, console = look(), wide_console()
    with Live(show(state), console=console, auto_refresh=False) as live:
        while state.state == "running":
            time.sleep(seconds)
            state = look()
            live.update(show(state), refresh=True)
    if not console.is_terminal:  # where `Live` shows the last state alone, and ends no line
        console.line()
    return state

"""How far a run is and who is at it, from its shards, its leases and its workers' logs.

Whatever is not known is None: of a record without a log nobody knows how many shards a step has,
and where no shard of a step is done yet nobody knows how long the others take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Literal

from leaderboards.holders import AGE, Holder, file_time, has_ended, holders
from leaderboards.store import RunStore
from leaderboards.summary import Summary, summarise
from leaderboards.verdicts import CLEAN_STEP
from leaderboards.worklog import Line, Logs, WorkerLog, read_logs

RECENT = 20
"""Shards that the time of the next ones is judged by."""

State = Literal["running", "stopped", "complete"]
Doing = Literal["at work", "waiting", "lost"]


@dataclass(frozen=True)
class StepState:
    """How far a step is.

    Attributes:
        name: Of the step.
        shards: Those that are there.
        all_shards: How many it has; None if not known.
        samples: Those that have a row.
        all_samples: How many it has to do; None if not known.
        settled: Samples whose verdict is this step's.
        seconds: Time it took so far, the sum over all workers.
        rate: Samples that one worker does in a second, of late; None if not known.
        workers: How many are at it now.
        left: Seconds that it may still take at this rate; None where nobody can say.
    """

    name: str
    shards: int
    all_shards: int | None
    samples: int
    all_samples: int | None
    settled: int
    seconds: float
    rate: float | None = None
    workers: int = 0
    left: float | None = None


@dataclass(frozen=True)
class WorkerState:
    """What a worker does.

    Attributes:
        host: Its machine.
        pid: Its process there.
        doing: `lost`: it holds a lease, but its process has ended or is long silent.
        step: Where it is; None if not known.
        shard: What it has a lease of; None if nothing.
        since: Since when, by the worker's own clock; None if not known.
        heartbeat: Seconds since it was last heard of, by the file system's clock.
    """

    host: str
    pid: int
    doing: Doing
    step: str | None
    shard: str | None
    since: datetime | None
    heartbeat: float


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        state: `running`: somebody is at it; `complete`: nothing is left to do.
        steps: In the protocol's order.
        workers: Those that hold a lease or wait for those who do.
        wall: Seconds in which at least one worker was at it (`wall_seconds`); None without a log.
        told: How the last worker ended where the run is stopped; None if nothing says so.
        problems: Logs that could not be read, one line each.
        summary: What it found so far.
    """

    state: State
    steps: tuple[StepState, ...]
    workers: tuple[WorkerState, ...]
    wall: float | None
    told: str | None
    problems: tuple[str, ...]
    summary: Summary


def watch(store: RunStore) -> RunState:
    """Look how far a run is; nothing of it is changed.

    Raises:
        ContradictionError: A sample is both certified and broken.
        RecordError: A shard is not valid, or the leases lead out of the record.
    """
    logs = read_logs(store.folder)
    workers = tuple(_workers(holders(store.folder), logs, store.folder))
    store = store.snapshot()  # after the leases: what they stand for may be there by now
    summary = summarise(store)
    alive = [worker for worker in workers if worker.doing != "lost"]
    state: State = "running" if alive else "complete" if summary.complete else "stopped"
    steps = tuple(_steps(store, summary, logs, alive))
    told = _last_words(logs) if state == "stopped" else None
    wall = wall_seconds(logs)
    return RunState(state, steps, workers, wall, told, logs.problems, summary)


def _workers(held: Sequence[Holder], logs: Logs, folder: Path) -> Iterator[WorkerState]:
    for holder in held:
        since = None if holder.since is None else datetime.fromtimestamp(holder.since, UTC)
        doing: Doing = "lost" if holder.lost else "at work"
        yield WorkerState(
            holder.host, holder.pid, doing, holder.step, holder.shard, since, holder.heartbeat
        )
    known = {(holder.host, holder.pid) for holder in held}
    silent = [log for log in logs.workers if log.last.event != "ended"]
    now = file_time(folder) if silent else 0.0
    for log in silent:
        last, heard = log.last, max(0.0, now - log.changed)
        if (last.host, last.pid) not in known and _lives(log, heard):
            doing = "waiting" if last.event == "waiting" else "at work"
            yield WorkerState(last.host, last.pid, doing, last.step, None, last.time, heard)


def _lives(log: WorkerLog, heard: float) -> bool:
    start = log.lines[0]
    who = {"host": start.host, "pid": start.pid, "boot": start.boot, "started": start.began}
    ended = has_ended({**who, "namespace": start.namespace})
    return heard <= AGE if ended is None else not ended


def _steps(
    store: RunStore, summary: Summary, logs: Logs, alive: Sequence[WorkerState]
) -> Iterator[StepState]:
    lines = sorted((line for log in logs.workers for line in log.lines), key=lambda x: x.time)
    for told in summary.steps:
        mine = [line for line in lines if line.step == told.name]
        shards = len(store.shard_paths(told.name))
        all_samples, all_shards = _all(told.name, mine, summary)
        if summary.complete or told.samples == all_samples:
            all_samples, all_shards = told.samples, shards
        at_it = sum(w.step == told.name and w.doing == "at work" for w in alive)
        rate, left = _rate(mine), None
        if at_it and rate and all_samples is not None:
            left = max(0, all_samples - told.samples) / (rate * at_it)
        yield StepState(
            name=told.name,
            shards=min(shards, all_shards) if all_shards is not None else shards,
            all_shards=all_shards,
            samples=told.samples,
            all_samples=all_samples,
            settled=told.settled,
            seconds=told.seconds,
            rate=rate,
            workers=at_it,
            left=left,
        )


def _all(step: str, lines: Sequence[Line], summary: Summary) -> tuple[int | None, int | None]:
    """How many samples and shards a step has, as far as that is known."""
    for line in reversed(lines):
        if line.event == "step":
            return line.samples, line.shards
    return (summary.samples if step == CLEAN_STEP else None), None


def _rate(lines: Sequence[Line]) -> float | None:
    done = [line for line in lines if line.event == "shard"][-RECENT:]
    samples = sum(line.samples or 0 for line in done)
    seconds = math.fsum(line.seconds or 0.0 for line in done)
    return samples / seconds if samples and seconds > 0 else None


def wall_seconds(logs: Logs) -> float | None:
    """Return the seconds in which at least one worker was at a run; None without a log.

    Clocks of machines may differ, which makes it longer. Of a worker that was killed, or is at
    work, the time since its last line is not in it.
    """
    spans = sorted((log.lines[0].time, log.last.time) for log in logs.workers)
    total, reached = 0.0, None
    for begin, end in spans:
        begin = begin if reached is None else max(begin, reached)
        total += max(0.0, (end - begin).total_seconds())
        reached = end if reached is None else max(end, reached)
    return total if spans else None


def most_at_once(logs: Logs) -> int:
    """Return the largest number of workers that were at a run at the same time."""
    turns = [(log.lines[0].time, -1) for log in logs.workers]
    turns += [(log.last.time, 1) for log in logs.workers]
    return -min(accumulate(turn for _, turn in sorted(turns)), default=0)


def _last_words(logs: Logs) -> str | None:
    """How the worker ended that was heard of last."""
    if not logs.workers:
        return None
    last = max((log.last for log in logs.workers), key=lambda line: line.time)
    who = f"{last.host} {last.pid}, {last.time:%Y-%m-%d %H:%M:%S} UTC"
    if last.event != "ended":
        return f"the last worker ended without a word ({who})"
    if last.how == "failed":
        return f"the last worker failed: {last.text} ({who})"
    return f"the last worker was stopped ({who})" if last.how == "stopped" else None

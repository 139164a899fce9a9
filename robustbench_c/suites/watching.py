"""How far a suite's folder is and who is at it, for whoever looks on; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from leaderboards.errors import RecordError
from leaderboards.files import list_folder
from leaderboards.holders import FOLDER as LEASES
from leaderboards.holders import Holder, holders
from leaderboards.store import RunStore, is_run
from leaderboards.watching import RunState, State, watch
from robustbench_c.suites.joblog import FOLDER, JobLog, JobRecord

Stage = Literal["done", "failed", "at work", "interrupted", "left"]


@dataclass(frozen=True)
class JobState:
    """What is known of a job.

    Attributes:
        id: Its id.
        command: The command line, without where results go.
        stage: `interrupted`: begun, but nobody is at it: the same command goes on; `left`: nobody
            began it.
        host: The machine of who is at it, or of a worker that is lost; None where there is none.
        pid: Its process there.
        lost: Whether that worker has ended, or is long silent.
        since: Since when it is at it, by its own clock.
        seconds: Time that it took; None unless done or failed.
        error: Why it failed.
        result: Folder that it made.
    """

    id: str
    command: str
    stage: Stage
    host: str | None = None
    pid: int | None = None
    lost: bool = False
    since: datetime | None = None
    seconds: float | None = None
    error: str | None = None
    result: str | None = None


@dataclass(frozen=True)
class SuiteState:
    """How far a suite is.

    Attributes:
        state: `running`: somebody is at it; `complete`: every job is done.
        jobs: Of the suite that was begun last in this folder; of older folders, that do not hold
            it, those that somebody began.
        others: How many jobs of other suites the folder holds.
        runs: The runs that somebody has leases of, by their id.
        problems: Of runs that could not be read, one line each.
    """

    state: State
    jobs: tuple[JobState, ...]
    others: int
    runs: dict[str, RunState]
    problems: tuple[str, ...]

    def count(self, stage: Stage) -> int:
        """The number of jobs at a stage."""
        return sum(job.stage == stage for job in self.jobs)


def is_suite(folder: Path) -> bool:
    """Whether a folder holds jobs of a suite, and is not a run itself.

    Raises:
        RecordError: The folder cannot be read.
    """
    return folder / FOLDER in list_folder(folder, folder) and not is_run(folder)


def watch_suite(out: Path) -> SuiteState:
    """Look how far a suite's folder is.

    Raises:
        RecordError: It cannot be read.
        RunError: A record of a job is none of ours.
    """
    log = JobLog(out)
    held = {each.shard: each for each in holders(log.folder)}
    begun, planned = log.ids(), log.planned()
    ids = planned or dict.fromkeys(begun, "")
    jobs = tuple(_job(log, job, command, held) for job, command in ids.items())
    runs, problems = _runs(out)
    alive = any(not each.lost for each in held.values())
    alive = alive or any(run.state == "running" for run in runs.values())
    done = all(job.stage == "done" for job in jobs)
    state: State = "running" if alive else "complete" if jobs and done else "stopped"
    return SuiteState(state, jobs, len(set(begun) - set(ids)), runs, problems)


def _job(log: JobLog, job: str, command: str, held: dict[str, Holder]) -> JobState:
    record, holder = log.read(job), held.get(job)
    stage: Stage
    if holder is not None and not holder.lost:
        stage = "at work"
    elif record is None:
        stage = "left"
    else:
        stage = "failed" if record.state == "failed" else "interrupted"
        if log.holds(record):
            stage = "done"
    ended: JobRecord | None = record if stage in ("done", "failed") else None
    since = holder.since if holder is not None else None
    return JobState(
        id=job,
        command=record.command if record is not None else command,
        stage=stage,
        host=None if holder is None else holder.host,
        pid=None if holder is None else holder.pid,
        lost=holder is not None and holder.lost,
        since=None if since is None else datetime.fromtimestamp(since, UTC),
        seconds=None if ended is None else ended.seconds,
        error=None if ended is None else ended.error,
        result=None if ended is None else ended.result,
    )


def _runs(out: Path) -> tuple[dict[str, RunState], tuple[str, ...]]:
    """The runs that somebody has leases of."""
    found, problems = {}, []
    for folder in _at_work(out):
        try:
            store = RunStore.open(folder)
            found[store.manifest.run_id] = watch(store)
        except RecordError as error:
            problems.append(str(error))
    return found, tuple(problems)


def _at_work(out: Path) -> Sequence[Path]:
    return [p for p in list_folder(out, out) if (p / LEASES).is_dir() and is_run(p)]

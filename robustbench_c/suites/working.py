"""One worker's way through the jobs of a suite."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

from leaderboards.errors import one_line
from robustbench_c.memory import peak_memory
from robustbench_c.suites.files import Files
from robustbench_c.suites.job import TRAINED, Job
from robustbench_c.suites.joblog import JobLog, JobRecord, new_attempt, now

Execute = Callable[[Job], str]
"""Does a job, alone or with others, and returns the folder it made, below that of the suite."""
Describe = Callable[[Exception], tuple[str, int] | None]
"""The line and exit code of an error that users can act on; None for a defect of ours."""
Say = Callable[[str], None]

_PAUSE = 0.5
_LEASE = "job"


class Worker:
    """Does jobs until each is done or has failed, whoever does it.

    What failed before this worker began is tried again, once.

    Args:
        jobs: Of the suite, in the order that all workers know.
        log: What became of them.
        execute: Does one.
        describe: Says what an error means: a job that fails does not stop the others.
        say: Told which job is begun, and what failed.
        trained: The jobs that train models which these are about.

    Raises:
        RunError: A file that a job was begun with has changed.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        log: JobLog,
        execute: Execute,
        describe: Describe,
        say: Say,
        trained: Sequence[Job] = (),
    ) -> None:
        self._jobs, self._log, self._files = jobs, log, Files(log.folder.parent)
        self._execute, self._describe, self._say = execute, describe, say
        self._tried: dict[str, str] = {}
        self._whole: set[str] = set()
        self._trained = {job.name: job for job in trained}
        log.prepare()
        log.plan(jobs)
        for job in jobs:
            if (record := log.read(job.id)) is not None:
                self._check(job, record)
                if record.state == "failed":
                    self._tried[job.id] = record.attempt

    def run(self) -> None:
        """Do the jobs that train models, then those that are left.

        Raises:
            RunError: A file that a job was begun with has changed.
        """
        for trains in (True, False):
            self._work_off([job for job in self._jobs if job.trains is trains])
        self._log.leases.clear()

    def _work_off(self, jobs: Sequence[Job]) -> None:
        """Do jobs that nobody is at, from the worker's own place on; then help the others."""
        first = int(self._log.leases.start * len(jobs))
        left = [*jobs[first:], *jobs[:first]]
        while left:
            before = len(left)
            for helps in (False, True):
                for job in list(left):
                    if self._try(job, helps):
                        left.remove(job)
                if len(left) < before:
                    break
            else:
                time.sleep(_PAUSE)

    def _try(self, job: Job, helps: bool) -> bool:
        """Do a job unless another worker is at it; returns whether it has ended."""
        if self._has_ended(job):
            return True
        with self._log.leases.claim(_LEASE, job.id) as mine:
            if self._has_ended(job):
                return True
            if not mine and (job.trains or not helps):
                return False
            return self._do(job, mine)

    def _has_ended(self, job: Job) -> bool:
        """Whether a job needs no worker any more: what it made is there, or it has failed."""
        if job.id in self._whole:
            return True
        record = self._log.read(job.id)
        if record is None or record.state == "begun" or record.command != str(job):
            return False
        if record.state == "failed":
            return record.attempt != self._tried.get(job.id)
        if self._log.holds(record):
            self._whole.add(job.id)
        return job.id in self._whole

    def _files_of(self, job: Job) -> tuple[str, ...]:
        """The files that a job reads, and those that a training made."""
        source = job if job.trains else self._trained.get(job.asks_for or "")
        made = () if source is None else tuple(f"{TRAINED}{path}" for path in source.made)
        out = self._log.folder.parent
        there = (name for name in made if (out / name.removeprefix(TRAINED)).exists())
        return (*job.files, *there)

    def _check(self, job: Job, record: JobRecord) -> None:
        """Refuse a job whose files are others than those that it was begun with."""
        known = self._files_of(job)
        for path, sha256 in record.files.items():
            if path in known:
                self._files.expect(path, sha256)

    def _hashes(self, job: Job) -> dict[str, str]:
        return {path: self._files.sha256(path) for path in self._files_of(job)}

    def _do(self, job: Job, mine: bool) -> bool:
        """Do a job; returns whether this worker is through with it."""
        place = f"[{self._jobs.index(job) + 1}/{len(self._jobs)}]"
        self._say(f"{place} {'' if mine else 'helps with '}{job}")
        if (record := self._log.read(job.id)) is not None:
            self._check(job, record)
        begun = JobRecord(
            command=str(job), state="begun", files=self._hashes(job), attempt=new_attempt()
        )
        if mine:
            self._log.write(job, begun)
        started = time.monotonic()
        changes: dict[str, object]
        try:
            changes = {"state": "done", "result": self._execute(job), "files": self._hashes(job)}
        except Exception as error:
            shown = self._describe(error)
            if shown is None:
                raise
            self._hashes(job)  # what has changed is refused, whatever came of it
            line = one_line(shown[0], 2000)
            changes = {"state": "failed", "error": line, "exit_code": shown[1]}
            self._say(f"{place} failed ({shown[1]}): {line}")
        finally:
            gc.collect()
        # one that was stopped for long may have been overtaken, and has failed for that alone
        lost = mine and not self._log.leases.holds(_LEASE, job.id)
        if self._has_ended(job) or ((lost or not mine) and changes["state"] == "failed"):
            return not lost  # another has written down what came of it, or will
        changes |= {
            "seconds": round(time.monotonic() - started, 2),
            "peak_bytes": peak_memory(),
            "ended": now(),
        }
        self._log.write(job, begun.model_copy(update=changes))
        return True

"""One worker's way through the jobs of a suite."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

from leaderboards.errors import one_line
from robustbench_c.memory import peak_memory
from robustbench_c.suites.files import Files
from robustbench_c.suites.job import Job
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

    Raises:
        RunError: A file that a job was begun with has changed.
    """

    def __init__(
        self, jobs: Sequence[Job], log: JobLog, execute: Execute, describe: Describe, say: Say
    ) -> None:
        self._jobs, self._log, self._files = jobs, log, Files()
        self._execute, self._describe, self._say = execute, describe, say
        self._tried: dict[str, str] = {}
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
            self._do(job, mine)
        return True

    def _has_ended(self, job: Job) -> bool:
        record = self._log.read(job.id)
        if record is None or record.state == "begun":
            return False
        return record.state == "done" or record.attempt != self._tried.get(job.id)

    def _check(self, job: Job, record: JobRecord) -> None:
        for path, sha256 in record.files.items():
            if path in job.files:
                self._files.expect(path, sha256)

    def _do(self, job: Job, mine: bool) -> None:
        place = f"[{self._jobs.index(job) + 1}/{len(self._jobs)}]"
        self._say(f"{place} {'' if mine else 'helps with '}{job}")
        if (record := self._log.read(job.id)) is not None:
            self._check(job, record)
        begun = JobRecord(
            command=str(job),
            state="begun",
            files={path: self._files.sha256(path) for path in job.files},
            attempt=new_attempt(),
        )
        if mine:
            self._log.write(job, begun)
        started = time.monotonic()
        changes: dict[str, object]
        try:
            changes = {"state": "done", "result": self._execute(job)}
        except Exception as error:
            shown = self._describe(error)
            if shown is None:
                raise
            changes = {
                "state": "failed",
                "error": one_line(shown[0], 2000),
                "exit_code": shown[1],
            }
            self._say(f"{place} failed ({shown[1]}): {changes['error']}")
        finally:
            gc.collect()
        if mine or not self._has_ended(job):
            changes |= {
                "seconds": round(time.monotonic() - started, 2),
                "peak_bytes": peak_memory(),
                "ended": now(),
            }
            self._log.write(job, begun.model_copy(update=changes))

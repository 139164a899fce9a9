"""The workers of one command on a cluster: which job each is in, and how it ended."""

from __future__ import annotations

import io
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING

from leaderboards.errors import one_line
from robustbench_c.errors import RunError
from robustbench_c.executors.protocol import Ended, Say, Work
from robustbench_c.executors.slurm_queue import GONE, Place, cancel_pending

if TYPE_CHECKING:
    from submitit import Job, SlurmExecutor

_USUAL = ("None", "Priority", "Resources")
"""Reasons to wait that pass by themselves."""
_TAIL = 1 << 14
_RULE = "-" * 22
"""What submitit puts around a traceback."""


class Crew:
    """Workers that were submitted.

    Attributes:
        folder: Where submitit keeps its files and the workers their logs.
        ended: How those ended that have.
    """

    def __init__(
        self, work: Work, workers: int, submitter: SlurmExecutor, attempts: int, grace: float
    ) -> None:
        self.folder = Path(submitter.folder)
        self.ended: dict[int, Ended] = {}
        self._work, self._workers, self._submitter = work, workers, submitter
        self._attempts, self._grace = attempts, grace
        self._jobs: dict[int, Job[int]] = {}
        self._submitted: Counter[int] = Counter()
        self._over: dict[str, float] = {}
        self._spare: set[str] = set()

    @property
    def job_ids(self) -> list[str]:
        """Ids of the workers' jobs, arrays as one."""
        return sorted({job.job_id.partition("_")[0] for job in self._jobs.values()}, key=int)

    @property
    def has_ended(self) -> bool:
        """Whether none is left."""
        return len(self.ended) == self._workers

    def submit(self, numbers: Iterable[int]) -> None:
        """Submit workers as one array of jobs.

        Raises:
            RunError: Slurm refuses them.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from robustbench_c.executors.slurm_worker import Worker

        numbers = list(numbers)
        words = [self._work.words(number, self._workers) for number in numbers]
        try:
            with _outside_of_jobs(), redirect_stderr(io.StringIO()):  # which has the error as well
                jobs = self._submitter.map_array(Worker(), words)
        except (FailedJobError, FailedSubmissionError) as error:
            lines = [re.sub("^sbatch: ((error|fatal): )?", "", x) for x in str(error).splitlines()]
            raise RunError(f"Slurm refuses the jobs: {one_line('; '.join(lines))}") from error
        except OSError as error:
            raise RunError(f"cannot submit jobs from {self.folder}: {error.strerror}") from error
        self._jobs.update(zip(numbers, jobs, strict=True))
        self._submitted.update(numbers)

    def look(self, found: Mapping[str, Place], say: Say) -> None:
        """See who has ended; submit again who was lost, as long as there is work to do.

        Args:
            found: Where the jobs stand.
            say: Told who failed or was lost.
        """
        lost = []
        for worker in sorted(self._jobs.keys() - self.ended.keys()):
            end, is_lost = self._end_of(worker, found)
            if end is None:
                continue
            if is_lost and self._submitted[worker] < self._attempts and not self._is_done:
                say(f"worker {worker} was lost ({end.message}); it is submitted again")
                lost.append(worker)
                continue
            self.ended[worker] = end
            if end.exit_code:
                say(f"worker {worker} ended with code {end.exit_code}: {end.message}")
        if lost and not self._is_done:
            self.submit(lost)
        elif self._is_done:
            waiting = {i for i in self._open_ids if found.get(i, GONE).state == "PENDING"}
            if waiting - self._spare:
                cancel_pending(waiting - self._spare)
            self._spare |= waiting

    def counts(self, found: Mapping[str, Place]) -> str:
        """What all are doing, in one line."""
        here = [found[i] for i in self._open_ids if i in found and not found[i].is_over]
        states = Counter(place.state.lower() for place in here)
        reasons = {place.reason for place in here if place.state == "PENDING"} - {*_USUAL}
        why = f" (pending: {', '.join(sorted(reasons))})" if reasons else ""
        parts = [f"{number} {state}" for state, number in sorted(states.items())]
        return f"workers: {', '.join([*parts, f'{len(self.ended)} ended'])}{why}"

    @property
    def _open_ids(self) -> list[str]:
        return [job.job_id for worker, job in self._jobs.items() if worker not in self.ended]

    @property
    def _is_done(self) -> bool:
        """Whether the work is: one that ends well has waited for all of it, whoever did it."""
        return any(end.exit_code == 0 for end in self.ended.values())

    def _end_of(self, worker: int, found: Mapping[str, Place]) -> tuple[Ended | None, bool]:
        """How a worker ended, if it has, and whether that was not its own doing."""
        job = self._jobs[worker]
        place = found.get(job.job_id, GONE)
        if not place.is_over:
            return None, False
        # What is cancelled before it starts can vanish from the queue at once.
        never = place == GONE and not job.paths.stderr.exists()
        if place.state == "CANCELLED" or never:
            if job.job_id in self._spare:
                return Ended(worker, 0, "not needed: the work was done"), False
            return Ended(worker, -SIGTERM, "cancelled"), False
        result = job.paths.result_pickle
        if result not in result.parent.iterdir():  # a listing is not cached, as a look is
            since = self._over.setdefault(job.job_id, time.monotonic())
            if time.monotonic() - since < self._grace:
                return None, False
            said = f"{place.state.lower()} without a result: {_last_line(job.paths.stderr)}"
            return Ended(worker, 1, f"job {job.job_id} {said}"), True
        if (failure := job.exception()) is not None:
            trace = str(failure).split(_RULE)
            said = trace[len(trace) // 2].strip().splitlines()[-1]
            return Ended(worker, 1, one_line(said)), False
        code = job.result()
        if code < 0:
            return Ended(worker, code, f"killed by signal {-code}"), True
        return Ended(worker, code, _last_line(job.paths.stderr)), False


def _last_line(log: Path) -> str:
    """The last line that a worker wrote to stderr."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return "no message"
    return one_line(next((line for line in reversed(lines) if line.strip()), "no message"))


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide what says that this process is in a job, for jobs that are submitted from one."""
    names = [n for n in os.environ if n.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_"))]
    kept = {"SLURM_CONF", "SUBMITIT_PREEMPT_SIGNAL"}
    hidden = {name: os.environ.pop(name) for name in names if name not in kept}
    try:
        yield
    finally:
        os.environ.update(hidden)

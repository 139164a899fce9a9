"""Workers as jobs of a Slurm cluster, by submitit (the extra `[slurm]`)."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leaderboards.files import make_folder, refuse_escape
from robustbench_c.errors import RunError, UsageError
from robustbench_c.executors.local import THREADS
from robustbench_c.executors.protocol import Ended, Here, Say, Work
from robustbench_c.executors.slurm_crew import Crew
from robustbench_c.executors.slurm_options import cpus_of, minutes_of
from robustbench_c.executors.slurm_queue import places

if TYPE_CHECKING:
    from submitit import SlurmExecutor as Submitter

FOLDER = "slurm"
_NAME = "robustbench-c"
_TIMEOUTS = 100
"""How often a job goes back into the queue at its time limit."""
_MOST_AT_ONCE = 10_000


@dataclass(frozen=True)
class SlurmExecutor:
    """Submits an array of jobs, one for each worker, and waits for them.

    What the scheduler takes away (a node fails, a job makes room, reaches its time limit, or is
    requeued by hand) comes back by the scheduler; a worker that is lost otherwise is submitted
    again. When one has ended well there is nothing left to do, and those that have not started are
    cancelled. Ctrl-C leaves the jobs in peace.

    Attributes:
        out: The folder that the workers share, as all nodes see it; logs are in its `slurm/`.
        options: Of `sbatch`, for each job (`slurm_options`).
        wait: Whether to wait for them.
        attempts: How often a worker is submitted at most.
        grace: Seconds from a job's end until its result has to be in the folder.
        pause: Seconds between two looks at the queue; None: from half a second up to 15.
    """

    out: Path
    options: Mapping[str, str | None] = field(default_factory=dict)
    wait: bool = True
    attempts: int = 3
    grace: float = 10.0
    pause: float | None = None

    def run(self, work: Work, workers: int, here: Here, say: Say) -> tuple[Ended, ...]:
        """Run the workers; see `Executor.run`. None is in this process.

        Returns:
            How each ended; nothing without `wait`.

        Raises:
            UsageError: submitit is missing.
            RunError: This machine cannot submit jobs, or Slurm refuses them.
            RecordError: `out` cannot be written.
        """
        crew = Crew(work, workers, self._submitter(), self.attempts, self.grace)
        try:
            crew.submit(range(1, workers + 1))
        except RunError:
            shutil.rmtree(crew.folder, ignore_errors=True)
            with suppress(OSError):  # of others
                (self.out / FOLDER).rmdir()
                self.out.rmdir()
            raise
        job = crew.job_ids[0]
        say(f"submitted {workers} worker{'s' * (workers > 1)} as job {job}; logs: {crew.folder}")
        if not self.wait:
            say(_follow(crew))
            return ()
        try:
            self._watch(crew, say)
        except KeyboardInterrupt:
            say(f"the workers go on without this command; {_follow(crew)}")
            raise
        return tuple(crew.ended[worker] for worker in sorted(crew.ended))

    def _submitter(self) -> Submitter:
        try:
            import submitit
        except ImportError as error:
            raise UsageError("Slurm needs submitit: pip install 'robustbench-c[slurm]'") from error
        for tool in ("sbatch", "srun", "squeue", "scancel"):
            if shutil.which(tool) is None:
                raise RunError(f"no {tool} on the path: this machine submits no jobs to Slurm")
        make_folder(self.out / FOLDER)
        refuse_escape(self.out, self.out / FOLDER)
        # A folder of our own, for us alone: what submitit finds there, it loads as code.
        folder = tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=self.out / FOLDER)
        submitter = submitit.SlurmExecutor(folder=folder, max_num_timeout=_TIMEOUTS)
        cpus = cpus_of(self.options)
        more = {key: True if value is None else value for key, value in self.options.items()}
        submitter.update_parameters(
            job_name=_NAME,
            cpus_per_task=cpus,
            time=minutes_of(self.options),
            array_parallelism=_MOST_AT_ONCE,
            srun_args=[f"--cpus-per-task={cpus}"],  # it does not take them from sbatch
            additional_parameters={"requeue": True, **more},
        )
        os.environ.setdefault(THREADS, str(cpus))  # the same for all: it is part of what a run is
        return submitter

    def _watch(self, crew: Crew, say: Say) -> None:
        begun, told = time.monotonic(), ""
        while not crew.has_ended:
            time.sleep(self.pause or min(15.0, max(0.5, (time.monotonic() - begun) / 10)))
            found = places(crew.job_ids)
            if found is not None:
                crew.look(found, say)
            now = "Slurm does not answer" if found is None else crew.counts(found)
            if now != told:
                say(now)
            told = now


def _follow(crew: Crew) -> str:
    ids = crew.job_ids
    return f"`squeue --jobs={','.join(ids)}` shows them, `scancel {' '.join(ids)}` ends them"

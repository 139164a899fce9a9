"""What Slurm says of jobs. `squeue` alone is asked: `sacct` wants a database that many have not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from robustbench_c.errors import RunError

_ALIVE = frozenset(
    (
        *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "STOPPED", "SIGNALING"),
        *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESIZING", "STAGE_OUT"),
        *("RESV_DEL_HOLD",),
    )
)
_SECONDS = 120


@dataclass(frozen=True)
class Place:
    """Where a job stands.

    Attributes:
        state: As Slurm has it, such as `RUNNING`.
        reason: Why it is in that state, such as `Resources`.
    """

    state: str
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it does not run and will not."""
        return self.state not in _ALIVE


GONE = Place("GONE")
"""Slurm has forgotten it: it ended some minutes ago."""


def places(job_ids: Iterable[str]) -> dict[str, Place] | None:
    """Return where jobs, and those of arrays, stand; None if Slurm does not answer.

    Those that it has forgotten are left out.

    Raises:
        RunError: There is no `squeue`.
    """
    arrays = ",".join(job_ids)
    words = ["squeue", "--array", "--states=all", "--noheader", "--format=%i|%T|%r", "--jobs"]
    done = _run([*words, arrays])
    if done is None or (done.returncode and "Invalid job id" not in done.stderr):
        return None
    rows = (line.strip().split("|", 2) for line in done.stdout.splitlines() if line.count("|") > 1)
    return {job_id: Place(state, reason) for job_id, state, reason in rows}


def cancel_pending(job_ids: Iterable[str]) -> None:
    """Take those of the jobs out of the queue that have not started."""
    _run(["scancel", "--state=PENDING", *job_ids])


def _run(words: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise RunError(f"cannot run {words[0]}: {error.strerror}") from error

"""What the tests ask of the cluster, and how they wait for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")


@dataclass(frozen=True)
class Cluster:
    folder: Path

    def ask(self, *words: str) -> str:
        """Run a command of Slurm's."""
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def states(self, job_id: str) -> dict[str, str]:
        """States of a job, or of those of an array, by id."""
        words = ("squeue", "--array", "--states=all", "--noheader", "--format=%i %T", "--jobs")
        return dict(row.split() for row in self.ask(*words, job_id).splitlines())


def until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)

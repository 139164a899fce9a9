"""`cluster.sh`: a second cluster beside the first, and nothing that outlives who wanted it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from slurm_cluster import SCRIPT, Cluster, until

pytestmark = pytest.mark.slurm

DAEMONS = ("munged", "slurmctld", "slurmd")


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True)


def lives(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_it_ends_with_the_process_that_wants_it(cluster: Cluster, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as owner:
        assert call("start", tmp_path, str(owner.pid)).returncode == 0
        pids = [(tmp_path / f"{name}.pid").read_text().strip() for name in DAEMONS]
        assert call("start", tmp_path, str(owner.pid)).returncode == 0  # it is there
        assert [(tmp_path / f"{name}.pid").read_text().strip() for name in DAEMONS] == pids
        assert all(map(lives, pids))
        owner.kill()
    until(lambda: not any(map(lives, pids)))
    assert call("stop", tmp_path).returncode == 0  # nothing to stop
    assert cluster.ask("sinfo", "--noheader", "--format=%P") == "main*"


def test_it_says_in_one_line_why_not(cluster: Cluster) -> None:
    done = call("start", "/proc/nowhere")
    assert done.returncode == 1
    assert done.stderr == "no Slurm cluster: cannot write /proc/nowhere\n"
    assert call("start").returncode == 2

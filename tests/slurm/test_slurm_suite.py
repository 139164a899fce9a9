"""A suite of eight jobs by eight jobs of Slurm, two of them killed: the records of a plain run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from slurm_cluster import Cluster, until

from leaderboards.store import RunStore

pytestmark = pytest.mark.slurm

SUITE = """
name = "eight"
[defaults]
norm = "linf"
eps-unit = "range"
samples = 100
steps = 40
no-diagnose = true
[[runs]]
model = ["breast-cancer-mlp", "german-mlp-standard"]
eps = [0.02, 0.04, 0.06, 0.08]
"""


def suite_command(folder: Path, out: str, *more: str) -> list[str]:
    words = [sys.executable, "-m", "robustbench_c", "robust-eval", "--suite"]
    words += [str(folder / "eight.toml"), "--out", str(folder / out)]
    return [*words, "--device=cpu", "--batch-size=64", *more]


def holders(out: Path) -> dict[int, Path]:
    """Who is at a shard now: the lease of each process."""
    found = {}
    for path in out.glob("*/leases/*/*.lease"):
        with suppress(OSError, ValueError):  # it is given back just now
            found[int(json.loads(path.read_text())["pid"])] = path
    return {pid: path for pid, path in found.items() if path.parent.name != "once"}


def job_of(pid: int) -> str:
    """The job of Slurm that a process belongs to."""
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    given = dict(line.partition("=")[::2] for line in lines)
    return f"{given['SLURM_ARRAY_JOB_ID']}_{given['SLURM_ARRAY_TASK_ID']}"


@contextmanager
def one_held_up(out: Path) -> Iterator[int]:
    """Stop a worker in the middle of a shard: until it goes on, the suite cannot be done."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for pid, lease in holders(out).items():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                try:
                    if holders(out).get(pid) == lease:
                        yield pid
                        return
                finally:
                    os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)
    pytest.fail("nobody was seen at work")


def starts(log: Path) -> int:
    return log.read_text().count("Starting with JobEnvironment") if log.exists() else 0


def test_eight_jobs_two_of_them_killed(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "eight.toml").write_text(SUITE)
    out, told = tmp_path / "slurm", tmp_path / "told"
    words = suite_command(tmp_path, "slurm", "--executor", "slurm", "--workers=8", "--slurm=time=9")
    with told.open("w") as file:
        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=file, text=True)
    with one_held_up(out) as held:
        others: dict[int, Path] = {}
        until(lambda: others.update(holders(out)) or len(others.keys() - {held}) > 1, 120)
        requeued, killed = sorted(others.keys() - {held})[:2]
        job, lost = job_of(requeued), job_of(killed)
        cluster.ask("scontrol", "requeue", job)
        os.kill(killed, signal.SIGKILL)
        (logs,) = (out / "slurm").iterdir()
        until(lambda: starts(logs / f"{job}_0_log.out") == 2, 120)
        until(lambda: "is submitted again" in told.read_text(), 120)
    shown = running.communicate(timeout=240)[0]
    lines = told.read_text().splitlines()
    assert running.returncode == 0, lines
    assert shown.count("complete ") == 8
    assert "submitted 8 workers as job" in lines[0]
    worker = int(lost.partition("_")[2]) + 1
    assert f"notice: worker {worker} was lost (killed by signal 9); it is submitted again" in lines
    assert "Restarts=1 " in cluster.ask("scontrol", "show", "job", job)

    plain = subprocess.run(suite_command(tmp_path, "plain"), capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    for alone in sorted(path.parent for path in (tmp_path / "plain").glob("*/manifest.json")):
        one, many = RunStore.open(alone), RunStore.open(out / alone.name)
        assert many.summary().counts == one.summary().counts
        assert not (many.folder / "leases").exists()
        for step in one.steps:
            ids = many.read_step(step)["sample_id"].to_numpy()
            assert len(np.unique(ids)) == len(ids)
            names = [path.name for path in one.shard_paths(step)]
            assert [path.name for path in many.shard_paths(step)] == names
        contents = [[step.content_sha256 for step in s.summary().steps] for s in (one, many)]
        assert contents[0] == contents[1]
        assert many.verdicts().equals(one.verdicts())

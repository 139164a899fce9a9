"""What a leaderboard of many runs takes: time and memory of the whole build."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from record_farm import make_farm

from leaderboards.site import build

MAIN = "from robustbench_c.cli.leaderboard import main; main()"


def test_few_runs_are_built_at_the_pace_of_many(tmp_path):
    """The short form: processor time alone, four times as much as the full one may take."""
    runs = 8
    folders = make_farm(tmp_path / "runs", runs, 1000)
    build(folders[:1], tmp_path / "first", title="loads what is to be loaded")
    started = time.process_time()
    built = build(folders, tmp_path / "site", title="runs")
    taken = time.process_time() - started
    assert (built.runs, built.refused, len(built.boards)) == (runs, (), 1)
    assert taken < 4 * runs * 2 * 60 / 1000


@pytest.mark.bench
def test_thousand_runs_of_thousand_samples(tmp_path):
    """In under 60 s and 1 GB on two cores: `make bench` on a machine that does nothing else."""
    place = Path(os.environ.get("ROBUSTBENCH_C_FARM", tmp_path / "runs"))
    if not place.exists():
        make_farm(place, 1000, 1000)
    before, started = _children(), time.monotonic()
    command = [
        sys.executable,
        "-c",
        MAIN,
        "build",
        place,
        "--out",
        tmp_path / "site",
        "--jobs",
        "2",
    ]
    done = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    peak = Peak(done.pid)
    peak.start()
    out, _ = done.communicate()
    taken, busy = time.monotonic() - started, _children() - before
    peak.join()
    index = (tmp_path / "site" / "index.html").stat().st_size
    print(
        f"\n1000 runs of 1000 samples: {taken:.1f} s, {busy:.1f} s of processor time, "
        f"{peak.megabytes:.0f} MB at most, main page {index / 1e6:.2f} MB"
    )
    assert done.returncode == 0
    assert "1000 runs" in out
    assert index < 2e6
    assert peak.megabytes < 1000
    assert taken < 60


class Peak(threading.Thread):
    """Looks at the memory of a process and its children until it ends."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self._process, self.megabytes = process, 0.0

    def run(self) -> None:
        while (found := _memory(self._process)) > 0:
            self.megabytes = max(self.megabytes, found)
            time.sleep(0.1)


def _memory(process: int) -> float:
    """Megabytes in memory of a process and those under it, shared pages counted in each."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        tasks = Path(f"/proc/{process}/task").iterdir()
        below = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return 0.0
    own = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return own * 1024 / 1e6 + sum(_memory(int(child)) for child in below)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

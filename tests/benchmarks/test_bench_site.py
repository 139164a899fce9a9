"""A site of a thousand runs: its time, its memory and the size of its main page."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from record_farm import make_farm

RUNS, SAMPLES = 1000, 1000
BUILD = "from robustbench_c.cli.leaderboard import main; main()"


@pytest.mark.bench
@pytest.mark.slow
def test_a_thousand_runs_in_a_minute_and_a_gigabyte(tmp_path) -> None:
    ready = os.environ.get("ROBUST_FARM")  # a farm that was made before, by record_farm.py
    farm = Path(ready) if ready else tmp_path / "farm"
    if not ready:
        make_farm(farm, RUNS, SAMPLES)
    site, begin, most = tmp_path / "site", time.monotonic(), 0
    command = [sys.executable, "-c", BUILD, "build", farm, "--out", site, "--jobs", "2"]
    with subprocess.Popen(command, start_new_session=True) as building:
        while building.poll() is None:
            most = max(most, _memory(building.pid))
            time.sleep(0.5)
    took = time.monotonic() - begin
    size = (site / "index.html").stat().st_size
    whole = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    print(
        f"\n{RUNS} runs of {SAMPLES} samples: {took:.1f} s, {most / 2**20:.0f} MiB of memory, "
        f"main page {size / 1e6:.2f} MB, site {whole / 1e6:.0f} MB"
    )
    assert building.returncode == 0
    assert len(list((site / "runs").iterdir())) == RUNS
    assert size < 2e6
    assert most < 2**30
    assert took < 60


def _memory(session: int) -> int:
    """Bytes that the processes of a session hold, shared ones counted once; 0 off Linux."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                rollup = (folder / "smaps_rollup").read_text().split("Pss:")[1]
                total += 1024 * int(rollup.split()[0])
        except (OSError, IndexError):
            continue  # it ended meanwhile
    return total

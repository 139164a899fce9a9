"""Two workers against one, and the cost of 10,000 samples against that of 100.

pytest -m bench tests/benchmarks/test_bench_scaling.py -s

Wants two cores of its own for 20 minutes, and Fashion-MNIST (docs/data.md). One thread in each
process. Start-up (imports, loading, tracing, what is drawn once) is taken off.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from leaderboards.worklog import read_logs
from robustbench_c import data
from robustbench_c.errors import DataError

ROUNDS = 5
LEAST_SPEEDUP = 1.7
MODEL = ("--model", "fmnist-cnn-standard", "--data", "fashion-mnist", "--eps", "0.01")
COMMON = ("--device", "cpu", "--batch-size", "64", "--no-diagnose", "--json")
ATTACK = ("--samples", "8000", "--steps", "40", "--restarts", "1")
BOUNDS = ("--samples", "550", "--attack", "none", "--certify", "crown")
SIZES = {100: 5, 1000: 5, 10_000: 2}
"""Numbers of samples, and how often each is run."""
CHEAP = ("--steps", "60", "--restarts", "1", "--certify", "ibp")
MOST_APART = 0.2


@pytest.fixture(scope="module", autouse=True)
def _data() -> None:
    try:
        data.load("fashion-mnist")
    except DataError as error:
        pytest.skip(str(error))


def run(out: Path, *words: str) -> tuple[dict[str, Any], Path, float]:
    """Run robust-eval by itself: its summary, the run's folder, the seconds of the process."""
    command = [sys.executable, "-m", "robustbench_c", "robust-eval", *MODEL, *COMMON, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    ended = subprocess.run(
        [*command, "--out", str(out)], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    assert ended.returncode == 0, ended.stderr
    (folder,) = out.iterdir()
    return json.loads(ended.stdout), folder, seconds


def shard_seconds(folder: Path) -> float:
    """Seconds from the first shard's beginning to the last one's end, by the workers' logs."""
    lines = [line for log in read_logs(folder).workers for line in log.lines]
    begun = min(line.time for line in lines if line.event == "step")
    return (max(line.time for line in lines if line.event == "shard") - begun).total_seconds()


@pytest.mark.bench
@pytest.mark.parametrize("words", [ATTACK, BOUNDS], ids=["attack", "bounds"])
def test_two_workers_are_nearly_twice_as_fast(words: tuple[str, ...], tmp_path: Path) -> None:
    taken: dict[int, list[float]] = {1: [], 2: []}
    hashes = set()
    for turn in range(ROUNDS):
        for workers, seconds in taken.items():
            out = tmp_path / f"{turn}-{workers}"
            summary, folder, _ = run(out, *words, "--workers", str(workers))
            hashes.add(tuple(step["content_sha256"] for step in summary["steps"]))
            seconds.append(shard_seconds(folder))
    one, two = (statistics.median(taken[workers]) for workers in (1, 2))
    shown = {n: [f"{s:.1f}" for s in each] for n, each in taken.items()}
    print(f"\n{' '.join(words)}: {shown} s; medians {one:.1f} and {two:.1f} s: {one / two:.2f}x")
    assert len(hashes) == 1
    assert one / two >= LEAST_SPEEDUP


@pytest.mark.bench
def test_cost_is_linear_and_memory_flat(tmp_path: Path) -> None:
    """Of each further sample; a process's start-up is in no difference."""
    seconds, peaks = {}, {}
    for n, times in SIZES.items():
        taken = []
        for turn in range(times):
            words = ("--samples", str(n), *CHEAP)
            _, folder, whole = run(tmp_path / f"{n}-{turn}", *words)
            taken.append(whole)
            (log,) = read_logs(folder).workers
            peaks[n] = (log.last.peak_memory or 0) / (1 << 20)
        seconds[n] = statistics.median(taken)
    few, many, most = SIZES
    first = (seconds[many] - seconds[few]) / (many - few)
    then = (seconds[most] - seconds[many]) / (most - many)
    shown = {n: f"{seconds[n]:.1f} s, {peaks[n]:.0f} MB" for n in SIZES}
    print(f"\n{shown}; {1000 * first:.2f} ms a sample to {many}, {1000 * then:.2f} ms beyond")
    assert abs(then / first - 1) <= MOST_APART
    assert peaks[most] <= (1 + MOST_APART) * peaks[few]

"""What boards of many runs take, in processor time and small enough for every test run.

`test_bench_site.py` builds the whole: 1,000 runs of 1,000 samples, against the clock.
"""

from __future__ import annotations

import time

import numpy as np
from record_farm import make_farm

from leaderboards.ranks import rank_ranges
from leaderboards.site import build


def test_few_runs_are_built_at_the_pace_of_many(tmp_path):
    """Of 60 s on two cores for 1,000 runs, each has 0.12 s of processor time; four times that."""
    runs = 6
    folders = make_farm(tmp_path / "runs", runs, 1000)
    build(folders[:1], tmp_path / "first", title="loads what is to be loaded")
    started = time.process_time()
    built = build(folders, tmp_path / "site", title="runs")
    taken = time.process_time() - started
    assert (built.runs, built.refused, len(built.boards)) == (runs, (), 1)
    assert taken < 4 * 0.12 * runs


def test_thousand_models_are_ranked_in_two_seconds():
    """499,500 pairs; it takes a fifth of a second."""
    rng = np.random.default_rng(0)
    skill, ease = rng.normal(0.6, 0.1, (1000, 1)), 0.2 * (rng.random(1000) - 0.5)
    right = rng.random((1000, 1000)) < skill + ease
    started = time.process_time()
    ranges = rank_ranges(right)
    assert time.process_time() - started < 2
    assert (ranges[:, 0] <= ranges[:, 1]).all()
    best, worst = right.sum(1).argmax(), right.sum(1).argmin()
    assert ranges[best, 0] == 1
    assert ranges[worst, 1] == 1000

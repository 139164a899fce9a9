"""Progress of a run: lines and bars that count the work of all."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from robustbench_c.cli.run_progress import RunProgress
from robustbench_c.evaluation.sharing import SharedProgress


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lines(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out, width=40)) as progress:
        assert isinstance(progress, SharedProgress)
        progress._bar.get_time = time.monotonic
        progress.shards("crown", 2, 10, 2)
        progress("crown", 400, 1000, 390)
        for second in range(1, 60):  # ten samples a second, by whomever
            clock[0] += 1
            progress.shards("crown", 2 + second // 10, 10, 2)
            progress("crown", 400 + 10 * second, 1000, 390)
        progress.shards("crown", 10, 10, 1)
        progress("crown", 1000, 1000, 990)
    lines = [re.sub(r"peak \d+ MB", "peak", line) for line in out.getvalue().splitlines()]
    assert lines[0] == "crown: 400/1000 done, 390 settled, 2/10 shards, 2 workers, peak"
    assert lines[5].endswith("peak, 0:00:30 left")
    assert lines[-1] == "crown: 1000/1000 done, 990 settled, 10/10 shards, peak"
    assert len(lines) == 11  # one in six seconds, and the last


def test_what_was_there_before_makes_no_pace(clock):
    out = io.StringIO()
    with RunProgress(Console(file=out)) as progress:
        progress._bar.get_time = time.monotonic
        progress("pgd", 900, 1000, 3)
        clock[0] += 6
        progress("pgd", 900, 1000, 3)
    assert "left" not in out.getvalue()
    assert "900/1000 done, 3 broken" in out.getvalue()
    assert "shards" not in out.getvalue()


def test_bars():
    out = io.StringIO()
    with RunProgress(Console(file=out, force_terminal=True, width=120)) as progress:
        progress.shards("pgd", 1, 4, 3)
        progress("pgd", 5, 20, 2)
        progress("ibp", 1, 2, 1)
    assert "5/20 done, 2 broken, 1/4 shards, 3 workers, peak " in out.getvalue()
    assert "1/2 done, 1 settled, peak " in out.getvalue()

"""`robust-runs status` of a run at work."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

RECORDS = Path(__file__).parents[3] / "records"
LINE = {"time": "2026-01-02T03:04:05Z", "host": "node\x1b[31m1", "pid": 7}


@pytest.fixture
def run(tmp_path):
    """A shipped record without its last shards, that another machine is at."""
    (whole,) = RECORDS.glob("breast-cancer-mlp-breast-cancer-auto-*")
    run = shutil.copytree(whole, tmp_path / whole.name)
    (run / "summary.json").unlink()
    for step in ("ibp", "crown-ibp", "crown", "alpha-crown", "complete"):
        shutil.rmtree(run / "shards" / step)
    log = run / "log" / "a.jsonl"
    log.parent.mkdir()
    events = [
        {"event": "started"},
        {"event": "step", "step": "ibp", "samples": 50, "shards": 5},
    ]
    log.write_text("".join(json.dumps(LINE | event) + "\n" for event in events))
    (run / "leases" / "ibp").mkdir(parents=True)
    (run / "leases" / "ibp" / "x.lease").write_text(json.dumps({"host": "node1", "pid": 7}))
    return run


def test_a_run_at_work(robust_runs, run):
    ended = robust_runs("status", run)
    assert ended.code == 0, ended.err
    lines = [" ".join(line.replace("│", " ").split()) for line in ended.out.splitlines()]
    assert "ibp 0 of 5 0 of 50 0 0.0 2" in lines
    assert any(line.startswith("node1 7 at work ibp x ") for line in lines)
    assert lines[-1].startswith("state: running, ")
    assert "\x1b" not in ended.out


def test_a_flood_is_cut_short(robust_runs, run):
    for i in range(60):
        (run / "leases" / "ibp" / f"{i}.lease").write_text('{"host": "h", "pid": 1}')
        (run / "log" / f"z{i}.jsonl").mkdir()
    lines = [line.strip() for line in robust_runs("status", run).out.splitlines()]
    assert {"and 42 more workers", "and 40 more problems"} <= set(lines)
    assert len(lines) < 100


def test_json(robust_runs, run):
    told = json.loads(robust_runs("status", run, "--json").out)
    assert (told["run_id"], told["state"]) == (told["summary"]["run_id"], "running")
    last = next(step for step in told["steps"] if step["name"] == "ibp")
    assert (last["all_shards"], last["samples"], last["left"]) == (5, 0, None)
    assert told["workers"][0]["shard"] == "x"


def test_watching_ends_when_nobody_is_at_it(robust_runs, run, monkeypatch):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        shutil.rmtree(run / "leases")
        shutil.rmtree(run / "log")

    monkeypatch.setattr(time, "sleep", nap)
    ended = robust_runs("status", run, "--watch", 2)
    assert ended.code == 0, ended.err
    assert naps == [2]
    assert "state: stopped" in ended.out


@pytest.mark.parametrize("words", [("--json", "--watch", 1), ("--watch", 0), ("--watch", "nan")])
def test_wrong_usage(robust_runs, run, words):
    ended = robust_runs("status", run, *words)
    assert (ended.code, len(ended.lines)) == (2, 1), ended.err


def test_it_needs_no_torch(robust_runs, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert robust_runs("status", run).code == 0

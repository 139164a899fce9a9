"""Logs of workers: what is whole is read, what is cut short, strange or large is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from run_makers import write_run  # type: ignore[import-not-found]

from leaderboards import worklog
from leaderboards.validation.validate import validate
from leaderboards.verify import verify_bytes


def a_line(event: str = "waiting", **told: Any) -> bytes:
    line = {"time": "2026-01-02T03:04:05.678Z", "host": "node1", "pid": 4711, "event": event}
    return (json.dumps(line | told) + "\n").encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def test_what_is_whole_is_read(log: Path, tmp_path: Path) -> None:
    whole = a_line("step", step="pgd", samples=9, shards=2) + a_line("shard", seconds=1.5)
    strange = b"\n[1]\nno json\n" + a_line("dance") + a_line(pid=-1) + b"\xff\n" + b"x" * 10_000
    cut = a_line("ended", how="complete")[:-9]
    (log / "b.jsonl").write_bytes(whole + strange + b"\n" + cut)
    (log / "a.jsonl").write_bytes(a_line() + a_line(new_in_a_later_version=3))
    (log / "notes.txt").write_bytes(b"not a log")
    (log / "c.jsonl").write_bytes(b"")
    first, second = worklog.read_logs(tmp_path).workers
    assert (first.name, len(first.lines), first.skipped) == ("a.jsonl", 2, 0)
    assert [line.event for line in second.lines] == ["step", "shard"]
    assert second.skipped == 7
    assert (second.lines[0].samples, second.last.seconds) == (9, 1.5)


def test_no_log_is_no_problem(tmp_path: Path) -> None:
    assert worklog.read_logs(tmp_path) == worklog.Logs()


def test_what_is_too_large_or_leads_elsewhere_is_told(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worklog, "MAX_LOG_BYTES", 1000)
    monkeypatch.setattr(worklog, "MAX_BYTES", 1500)
    monkeypatch.setattr(worklog, "MOST_LOGS", 5)
    outside = tmp_path.parent / "outside.jsonl"
    outside.write_bytes(a_line())
    (log / "6-link.jsonl").symlink_to(outside)
    (log / "5-large.jsonl").write_bytes(a_line() * 50)
    os.mkfifo(log / "4-pipe.jsonl")
    for name in ("3-fits", "2-no-room", "1-old"):
        (log / f"{name}.jsonl").write_bytes(a_line() * 10)
    found = worklog.read_logs(tmp_path)
    assert [worker.name for worker in found.workers] == ["3-fits.jsonl"]
    words = ("latest 5", "leads out", "limit is 1000", "not a regular file", "limit is")
    assert len(found.problems) == 5
    assert all(word in told for word, told in zip(words, found.problems, strict=True))


def test_a_record_is_valid_whatever_its_log_says(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run", broken={3})
    before = validate(store.folder)
    (store.folder / "log").mkdir()
    (store.folder / "log" / "x.jsonl").write_bytes(a_line() + b"\x00" * 100)
    assert validate(store.folder) == before
    assert verify_bytes(store) == []

"""How far a run is, who is at it, and how long it may still take: nothing is made up."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from record_makers import CROWN, PGD, a_frame, a_manifest, a_row  # type: ignore[import-not-found]
from run_makers import write_run  # type: ignore[import-not-found]

from leaderboards import watching
from leaderboards.holders import AGE, process
from leaderboards.store import RunStore
from leaderboards.summary import Summary, summarise
from leaderboards.watching import most_at_once, wall_seconds, watch
from leaderboards.worklog import read_logs

BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ME = process(os.getpid())


def log(
    run: Path, name: str, *events: dict[str, Any], pid: int = 7, silent: float = 0, **owner: Any
) -> Path:
    """Write the log of a worker of another machine, one event a second."""
    path = run / "log" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    who = {"host": "node1", "boot": "b", "began": "1", "pid": pid} | owner
    lines = [{"event": "started", **who}, *({"pid": pid, "host": who["host"]} | e for e in events)]
    times = (BEGUN + timedelta(seconds=i) for i in range(len(lines)))
    told = (
        json.dumps({"time": t.isoformat()} | each) for t, each in zip(times, lines, strict=True)
    )
    path.write_text("".join(f"{line}\n" for line in told))
    then = time.time() - silent
    os.utime(path, (then, then))
    return path


def lease(run: Path, step: str, silent: float = 0.0, **owner: Any) -> None:
    path = run / "leases" / step / f"{owner['pid']}.parquet.lease"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "node1", **owner}))
    then = time.time() - silent
    os.utime(path, (then, then))


STEP = {"event": "step", "step": "pgd", "samples": 8, "shards": 4}
SHARD = {"event": "shard", "step": "pgd", "samples": 2, "seconds": 4.0}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """Ten samples, eight right, PGD has done one shard of two."""
    store = RunStore.create(tmp_path / "run", a_manifest((PGD, CROWN)))
    rows = [a_row(i, "wrong" if i < 2 else None) for i in range(10)]
    store.write_shard("clean", a_frame(*rows))
    store.write_shard("pgd", a_frame(a_row(2, "broken"), a_row(3)))
    return store


def test_a_run_at_work(store: RunStore) -> None:
    log(store.folder, "a", STEP, SHARD)
    log(store.folder, "b", STEP, {"event": "waiting", "step": "pgd"}, pid=9)
    lease(store.folder, "pgd", pid=7, since=BEGUN.timestamp())
    lease(store.folder, "pgd", pid=8)
    lease(store.folder, "pgd", pid=11, silent=2 * AGE)
    found = watch(store)
    clean, pgd, crown = found.steps
    assert (clean.shards, clean.all_shards, clean.all_samples) == (1, 1, 10)
    assert (pgd.shards, pgd.all_shards, pgd.samples, pgd.all_samples) == (1, 4, 2, 8)
    assert (pgd.settled, pgd.seconds, pgd.workers) == (1, 0.5, 2)
    assert pgd.rate == 0.5
    assert pgd.left == 6.0  # six samples, two workers of one sample in two seconds each
    assert (crown.shards, crown.all_shards, crown.all_samples, crown.left) == (0, None, None, None)
    doing = {worker.pid: worker.doing for worker in found.workers}
    assert doing == {7: "at work", 8: "at work", 9: "waiting", 11: "lost"}
    by_pid = {worker.pid: worker for worker in found.workers}
    assert (by_pid[7].since, by_pid[8].since) == (BEGUN, None)
    assert by_pid[11].heartbeat == pytest.approx(2 * AGE, abs=5)
    assert (found.state, found.told, found.wall) == ("running", None, 2.0)


def test_nothing_is_made_up(store: RunStore) -> None:
    lease(store.folder, "pgd", pid=7)
    pgd = watch(store).steps[1]
    assert (pgd.workers, pgd.all_samples, pgd.rate, pgd.left) == (1, None, None, None)
    log(store.folder, "a", STEP)  # begun, but no shard is done
    pgd = watch(store).steps[1]
    assert (pgd.all_samples, pgd.rate, pgd.left) == (8, None, None)
    log(store.folder, "a", STEP, SHARD | {"seconds": 0.0})
    assert watch(store).steps[1].left is None


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({"event": "ended", "how": "stopped"}, "was stopped (node1 7"),
        ({"event": "ended", "how": "failed", "text": "No space"}, "failed: No space (node1 7"),
        (SHARD, "without a word (node1 7, 2026-01-02 03:04:07 UTC)"),
    ],
)
def test_a_run_that_stopped_says_how(store: RunStore, last: dict[str, Any], words: str) -> None:
    log(store.folder, "a", STEP, last, silent=2 * AGE)
    found = watch(store)
    assert (found.state, found.workers) == ("stopped", ())
    assert words in str(found.told)
    assert found.steps[1].left is None


def test_without_a_log_and_leases_it_stopped_and_nobody_knows_more(store: RunStore) -> None:
    before = sorted(store.folder.rglob("*"))
    found = watch(store)
    assert (found.state, found.told, found.wall, found.workers) == ("stopped", None, None, ())
    assert sorted(store.folder.rglob("*")) == before


def test_processes_of_this_machine_are_looked_for(store: RunStore) -> None:
    mine = {"host": ME["host"], "boot": ME["boot"], "pid": ME["pid"]}
    log(store.folder, "a", STEP, silent=9 * AGE, began=ME["started"], **mine)
    assert [worker.doing for worker in watch(store).workers] == ["at work"]
    log(store.folder, "a", STEP, began="1", **mine)
    assert watch(store).state == "stopped"


def test_a_complete_run(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run", broken={3}, certified={4})
    log(store.folder, "a", STEP, SHARD)  # a killed one's numbers of another cut
    (store.folder / "log" / "strange.jsonl").symlink_to(tmp_path)
    os.utime(store.folder / "log" / "a.jsonl", (1, 1))
    found = watch(store)
    assert found.state == "complete"
    assert [(s.shards, s.all_shards) for s in found.steps] == [(1, 1)] * 3
    assert [(s.samples, s.all_samples) for s in found.steps] == [(10, 10), (10, 10), (9, 9)]
    assert len(found.problems) == 1


def test_time_in_which_anybody_was_at_it(store: RunStore) -> None:
    log(store.folder, "a", *[SHARD] * 9)
    log(store.folder, "b", *[SHARD] * 5, pid=8)
    later = log(store.folder, "c", *[SHARD] * 3, pid=9)
    later.write_text(later.read_text().replace("T03:", "T05:"))
    logs = read_logs(store.folder)
    assert (wall_seconds(logs), most_at_once(logs)) == (9 + 3, 2)  # the last began on its own


def test_shards_and_samples_are_of_one_look(store: RunStore, monkeypatch: Any) -> None:
    def late(there: RunStore) -> Summary:
        found = summarise(there)
        store.write_shard("crown", a_frame(a_row(3, "certified")))  # another worker's, meanwhile
        return found

    monkeypatch.setattr(watching, "summarise", late)
    crown = watch(store).steps[2]
    assert (crown.shards, crown.samples) == (0, 0)

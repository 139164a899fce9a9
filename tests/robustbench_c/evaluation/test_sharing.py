"""Several workers on one run: nothing twice, nothing missing, the same record as one gives."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from toy_certifiers import LinearCertifier

from attacks.pgd import PGDConfig
from leaderboards.store import RunStore
from robustbench_c.evaluation import proving, sharing
from robustbench_c.evaluation.certifying import METHODS, CertifyConfig
from robustbench_c.leases import Leases

PGD = PGDConfig(steps=10, restarts=2, loss="margin", goal="multi-targeted")


@pytest.fixture
def small(small_shards, monkeypatch):
    monkeypatch.setattr(proving, "_UNITS", dict.fromkeys(METHODS, 1))
    monkeypatch.setattr(sharing, "_PAUSE", 0.01)


def shards(run):
    return {
        path.relative_to(run.folder).as_posix(): run.store.read_step(path.parent.name)
        .drop(columns="seconds")
        .to_json()
        for path in sorted(run.folder.rglob("*.parquet"))
    }


def test_three_at_once_make_the_record_of_one(linear, small, tmp_path, hashes):
    options = {"attack": PGD, "certify": CertifyConfig("ibp"), "diagnose": True}
    options["certifier"] = LinearCertifier.make  # tracing is for one thread at a time
    whole = linear.evaluate(tmp_path / "one", **options)
    runs, written, write = [], [], RunStore.write_shard

    def counting(store, step, frame, *more):
        written.append((step, *sorted(frame["sample_id"])))
        return write(store, step, frame, *more)

    def work(start: float) -> None:
        runs.append(linear.evaluate(tmp_path / "many", start=start, **options))

    RunStore.write_shard = counting
    try:
        threads = [threading.Thread(target=work, args=(i / 3,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        RunStore.write_shard = write
    assert len(runs) == 3
    for run in runs:
        assert hashes(run) == hashes(whole)
        assert shards(run) == shards(whole)
    attacked = [each for each in written if each[0] != "clean"]
    assert len(set(attacked)) == len(attacked) > 8
    assert runs[0].store.verify_bytes() == []
    assert not (runs[0].folder / "leases").exists()


def test_what_another_has_is_waited_for(linear, small, tmp_path, hashes):
    whole = linear.evaluate(tmp_path / "whole", attack=PGD)
    run = linear.evaluate(tmp_path / "run", attack=PGD)
    path = run.store.shard_paths("pgd")[0]
    content = path.read_bytes()
    path.unlink()
    with Leases(run.folder).claim("pgd", path.name) as mine:
        assert mine
        threading.Timer(0.3, path.write_bytes, (content,)).start()
        again = linear.evaluate(tmp_path / "run", attack=PGD)
    assert path.read_bytes() == content
    assert hashes(again) == hashes(whole)


def test_rows_of_two_workers_on_one_shard_count_once(linear, small, tmp_path, hashes, monkeypatch):
    """Every lease is stolen: both do everything."""
    whole = linear.evaluate(tmp_path / "whole", attack=PGD, save_adversarial=True)
    monkeypatch.setattr(Leases, "_take", lambda *_: True)
    begun = threading.Barrier(2)
    write, runs, written = RunStore.write_shard, [], []

    def together(store, step, frame, *more):
        if step == "pgd":
            begun.wait(10)  # both have worked on it, neither has written it
            written.append(frame["sample_id"].iloc[0])
        return write(store, step, frame, *more)

    def work() -> None:
        runs.append(linear.evaluate(tmp_path / "both", attack=PGD, save_adversarial=True))

    monkeypatch.setattr(RunStore, "write_shard", together)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 2 * len(set(written)) == 2 * len(runs[0].store.shard_paths("pgd"))
    for run in runs:
        assert hashes(run) == hashes(whole)
        assert run.summary.counts == whole.summary.counts
    assert runs[0].store.verify_bytes() == []


def test_a_finished_run_holds_nothing_of_the_killed(linear, small, tmp_path):
    run = linear.evaluate(tmp_path, attack=PGD, save_adversarial=True)
    left = [run.folder / ".summary.json.0a.tmp"]
    left += [run.folder / part / "pgd" / ".x.parquet.0a.tmp" for part in ("shards", "adversarial")]
    left += [run.folder / "leases" / "pgd" / name for name in ("x.parquet.lease", ".x.0a.tmp")]
    left[-1].parent.mkdir(parents=True)
    before = {path for path in run.folder.rglob("*") if path.is_file()}
    for path in left:
        path.write_text('{"host": "elsewhere"}')
    linear.evaluate(tmp_path, attack=PGD)
    assert {path for path in run.folder.rglob("*") if path.is_file()} == before
    assert not (run.folder / "leases").exists()


class Watcher:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def __call__(self, *state):
        self.told.append(state)

    def shards(self, *state):
        self.told.append(state)


def test_what_others_do_is_counted_as_it_comes(linear, small, tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "_LOOK", 0.0)
    run = linear.evaluate(tmp_path / "run", attack=PGD)
    paths = run.store.shard_paths("pgd")
    rows = run.store.read_step("pgd").set_index("sample_id")
    ids = [run.store.read_shard("pgd", path)["sample_id"].to_numpy() for path in paths]
    contents = {path: path.read_bytes() for path in paths}
    settled = [int(rows.loc[part, "verdict"].notna().sum()) for part in ids]
    for path in paths:
        path.unlink()
    worked, watcher = [], Watcher()

    def work(part, report):
        worked.append(part.tolist())
        report(1, 0)
        others = 2 if len(worked) == 1 else 1  # another worker is quick while we are at the first
        for path in [path for path in paths if not path.exists()][:others]:
            path.write_bytes(contents[path])

    with Leases(run.folder).claim("pgd", "another"):
        sharing.work_off(run.store, Leases(run.folder), "pgd", ids, work, watcher)
    n, all_ = len(paths), sum(map(len, ids))
    assert worked == [part.tolist() for part in (ids[0], *ids[2:])]
    assert watcher.told[:4] == [
        ("pgd", 0, n, 2),
        ("pgd", 0, all_, 0),
        ("pgd", 0, n, 2),
        ("pgd", 1, all_, 0),
    ]
    two = len(ids[0]) + len(ids[1])
    assert ("pgd", two, all_, settled[0] + settled[1]) in watcher.told
    assert watcher.told[-2:] == [("pgd", n, n, 2), ("pgd", all_, all_, sum(settled))]


def test_shards_are_cut_by_id_and_never_by_the_clock(linear, tmp_path):
    run = linear.evaluate(tmp_path, attack=PGD)
    manifest = run.store.manifest
    assert sharing.shard_size(manifest, 1e9) == manifest.tiles[-1]
    data = manifest.data.model_copy(update={"ids": "0-99999"})
    assert sharing.shard_size(manifest.model_copy(update={"data": data}), 1) == sharing.MOST
    parts = sharing.cut(np.array([5, 1, 9, 3]), 3)
    assert [part.tolist() for part in parts] == [[1, 3, 5], [9]]

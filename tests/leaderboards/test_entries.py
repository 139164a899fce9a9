"""Runs read as entries: each file once, by several processes as by one."""

from __future__ import annotations

from collections import Counter

import pytest
from record_makers import PGD, a_frame, a_manifest, a_row  # type: ignore[import-not-found]
from run_makers import write_run  # type: ignore[import-not-found]

from leaderboards import store as stores
from leaderboards.entries import find_runs, read_entries, read_entry
from leaderboards.errors import ContradictionError
from leaderboards.manifest import StepInfo
from leaderboards.store import RunStore


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entries")
    for name in ("a", "b", "c"):
        write_run(folder / name, {0}, {1}, {2, 3}, run_id=name)
    (folder / "b" / "summary.json").write_text("{}")
    return folder


def test_each_shard_is_read_once(root, monkeypatch):
    seen, read = Counter(), stores.read_bytes
    monkeypatch.setattr(stores, "read_bytes", lambda r, p, n: (seen.update([p]), read(r, p, n))[1])
    entry = read_entry(root / "a")
    shards = {path for path in seen if path.suffix == ".parquet"}
    assert len(shards) == 3
    assert {seen[path] for path in shards} == {1}
    assert entry.settled["verdict"].tolist()[:4] == ["wrong", "broken", "certified", "certified"]
    assert entry.settled["verdict"].tolist()[4:] == ["undecided"] * 6
    assert entry.settled["settled_by"].tolist()[:4] == ["clean", "pgd", "crown", "crown"]
    assert entry.settled["settled_by"].isna().tolist() == [False] * 4 + [True] * 6


def test_snapshot_keeps_what_it_read(root):
    snapshot = RunStore.open(root / "a").snapshot()
    assert snapshot.snapshot() is snapshot
    assert snapshot.read_step("pgd") is snapshot.read_step("pgd")
    assert snapshot.summary() == RunStore.open(root / "a").summary()


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_bad_run_hides_no_other(root, jobs):
    entries, refused = read_entries(find_runs([root]), jobs)
    assert [entry.folder.name for entry in entries] == ["a", "c"]
    assert [each.folder.name for each in refused] == ["b"]
    assert "summary.json" in refused[0].problem
    assert entries[1].right["certified"].tolist() == [False, False, True, True] + [False] * 6


def test_limits_that_fit_no_number_are_limits(tmp_path):
    huge = {"steps": 10**400, "restarts": 10**400, "max_queries": 10**400}
    step = StepInfo(name="pgd", kind="attack", parameters=PGD.parameters | huge)
    store = RunStore.create(tmp_path / "run", a_manifest((step,)))
    assert store.verify_bytes() == []


def test_a_contradiction_is_an_error_of_its_own(tmp_path):
    store = write_run(tmp_path, {0}, {1}, {2})
    store.write_shard("crown", a_frame(a_row(1, "certified", prediction=None, margin=None, work=1)))
    with pytest.raises(ContradictionError, match="both certified and broken: sample 1"):
        read_entry(tmp_path)

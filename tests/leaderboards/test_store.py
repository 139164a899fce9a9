from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_makers import CROWN, PGD, a_frame, a_manifest, a_row

from leaderboards.columns import COLUMNS, SCHEMA, content_sha256, to_table
from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "run", a_manifest())


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_rows_come_back_as_they_went_in(store: RunStore) -> None:
    rows = [a_row(4, Verdict.BROKEN), a_row(2, detail="rounding"), a_row(9, "error", margin=None)]
    path = store.write_shard("pgd", a_frame(*rows))
    assert path.parent == store.folder / "shards" / "pgd"
    assert path.name.startswith("00000002-00000009-")
    frame = RunStore.open(store.folder).read_step("pgd")
    assert list(frame.columns) == SCHEMA.names
    assert frame["sample_id"].tolist() == [2, 4, 9]
    assert frame["verdict"].isna().tolist() == [True, False, False]
    assert frame["verdict"].tolist()[1:] == ["broken", "error"]
    assert frame["iteration"].dtype == "Int32"
    assert frame["prediction"].dtype == "Int64"
    assert frame["iteration"].isna().tolist() == [True, False, True]
    assert frame["distance"].isna().tolist() == [True, False, True]
    assert frame.loc[1, "margin64"] == -0.5
    assert frame.loc[0, "detail"] == "rounding"
    assert store.completed_ids("pgd").tolist() == [2, 4, 9]
    assert store.completed_ids("clean").tolist() == []


def test_rows_made_while_memory_was_short_say_so(store: RunStore) -> None:
    store.write_shard("clean", a_frame(a_row(1), a_row(2), a_row(3)))
    store.write_shard("pgd", a_frame(a_row(1), a_row(2)), narrow=True)
    before = store.summary()
    store.write_shard("pgd", a_frame(a_row(2), a_row(3)))
    summary = store.write_summary()
    assert [step.narrow for step in summary.steps] == [0, 2]
    assert (before.notices[0][:11], summary.notices[0][:11]) == ("2 of 2 rows", "2 of 3 rows")
    assert "of pgd were made in smaller pieces" in summary.notices[0]
    assert store.verify_bytes() == []
    store.write_shard("pgd", a_frame(a_row(2), a_row(1)))  # the same again, with room
    assert store.summary() == summary


def test_results_do_not_depend_on_order_shards_or_time(tmp_path: Path) -> None:
    rows = [a_row(i, "broken" if i % 3 == 0 else None, margin64=-1 / (i + 1)) for i in range(10)]

    @settings(max_examples=15, deadline=None)
    @given(order=st.permutations(range(10)), size=st.integers(1, 10), data=st.data())
    def check(order: list[int], size: int, data: st.DataObject) -> None:
        folder = tmp_path / os.urandom(8).hex()
        other = RunStore.create(folder, a_manifest(batch_size=size))
        for start in range(0, 10, size):
            seconds = data.draw(st.floats(0, 9))
            chunk = [rows[i] | {"seconds": seconds} for i in order[start : start + size]]
            other.write_shard("pgd", a_frame(*chunk))
        assert content_sha256(other.read_table("pgd")) == expected

    expected = content_sha256(to_table(a_frame(*rows)))
    check()


@pytest.mark.parametrize("column", [c.name for c in COLUMNS if c.name != "seconds"])
def test_the_content_hash_sees_every_column(column: str) -> None:
    base = a_row(1, "broken", detail="x", bound=-0.5, radius=0.1, method="ibp", votes=9)
    other: dict[str, Any] = {"verdict": None, "detail": "y", "method": "crown"}
    if column not in other:
        other[column] = base[column] + 1
    values = (base[column], other[column])
    hashes = {content_sha256(to_table(a_frame(base | {column: v}))) for v in values}
    assert len(hashes) == 2
    if column in ("margin64", "distance", "restart", "bound", "radius"):  # null is not 0
        zero, null = (content_sha256(to_table(a_frame(base | {column: v}))) for v in (0, None))
        assert zero != null


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_id": 10}, "sample 10 is not one of the run's"),
        ({"sample_id": None}, "null"),
        ({"label": 3}, "label 3, but there are 3 classes"),
        ({"label": -1}, "label is negative"),
        ({"label": 0.5}, "type"),
        ({"prediction": None}, "prediction is null"),
        ({"margin": float("nan")}, "margin is null"),
        ({"margin": float("inf")}, "margin is not finite"),
        ({"verdict": "robust"}, "'robust'"),
        ({"verdict": "wrong"}, "'wrong' cannot come from a step of kind attack"),
        ({"verdict": "certified"}, "'certified' cannot"),
        ({"verdict": "undecided"}, "'undecided' cannot"),
        ({"forwards": -1}, "forwards is negative"),
        ({"seconds": float("inf")}, "seconds is not finite"),
        ({"iteration": 2**40}, "type"),
        ({"distance": -0.1}, "distance is negative"),
        ({"detail": "x" * 2000}, "detail"),
        ({"margin": "0.5"}, "type"),
    ],
)
def test_rows_that_cannot_be_are_refused(
    store: RunStore, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        store.write_shard("pgd", a_frame(a_row(1) | changes))
    assert files(store.folder) == {"manifest.json"}


def test_wrong_columns_steps_and_repetitions_are_refused(store: RunStore) -> None:
    with pytest.raises(RecordError, match="missing columns: margin"):
        store.write_shard("pgd", a_frame(a_row(1)).drop(columns="margin"))
    with pytest.raises(RecordError, match="unknown columns: extra"):
        store.write_shard("pgd", a_frame(a_row(1, extra=1)))
    with pytest.raises(RecordError, match=r"no step 'fab'.*clean, pgd"):
        store.write_shard("fab", a_frame(a_row(1)))
    with pytest.raises(RecordError, match="twice"):
        store.write_shard("pgd", a_frame(a_row(1), a_row(1)))
    with pytest.raises(RecordError, match="without rows"):
        store.write_shard("pgd", a_frame(a_row(1)).iloc[:0])


def test_a_sample_done_twice_counts_once_if_the_results_agree(store: RunStore) -> None:
    first = store.write_shard("pgd", a_frame(a_row(1), a_row(2)))
    before = first.read_bytes()
    assert store.write_shard("pgd", a_frame(a_row(2, seconds=9.0), a_row(1))) == first
    assert first.read_bytes() == before  # append-only
    store.write_shard("pgd", a_frame(a_row(2, seconds=5.0), a_row(3)))
    assert store.completed_ids("pgd").tolist() == [1, 2, 3]
    with pytest.raises(RecordError, match="other results"):
        store.write_shard("pgd", a_frame(a_row(1), a_row(2, forwards=4)))
    store.write_shard("pgd", a_frame(a_row(3, forwards=4), a_row(4)))
    with pytest.raises(RecordError, match="different results for one sample: 3"):
        store.read_step("pgd")


def test_subsets_with_the_same_ends_do_not_collide(store: RunStore) -> None:
    store.write_shard("pgd", a_frame(*(a_row(i) for i in (0, 2, 9))))
    store.write_shard("pgd", a_frame(*(a_row(i) for i in (0, 5, 9))))
    assert store.completed_ids("pgd").tolist() == [0, 2, 5, 9]


def test_resume_takes_the_same_run_only(store: RunStore) -> None:
    written = (store.folder / "manifest.json").read_bytes()
    store.write_shard("clean", a_frame(a_row(1)))
    again = RunStore.create(store.folder, a_manifest(tiles=(7,), batch_size=1, run_id="later"))
    assert again.manifest == store.manifest
    assert again.completed_ids("clean").tolist() == [1]
    with pytest.raises(RecordError, match=r"cannot be resumed: seed 0 on record, 5 asked$"):
        RunStore.create(store.folder, a_manifest(seed=5))
    with pytest.raises(RecordError, match=r"data.ids .*protocol.steps .*dtype"):
        RunStore.create(store.folder, a_manifest((CROWN,), ids="0-3", dtype="float64"))
    assert (store.folder / "manifest.json").read_bytes() == written


def test_what_a_crash_left_is_ignored_and_then_removed(store: RunStore) -> None:
    shard = store.write_shard("pgd", a_frame(a_row(1)))
    left = [shard.parent / f".{shard.name}.0a1b2c3d.tmp", store.folder / ".manifest.json.00.tmp"]
    for path in left:
        path.write_bytes(b"half")
    assert RunStore.open(store.folder).completed_ids("pgd").tolist() == [1]
    assert all(path.exists() for path in left)
    RunStore.create(store.folder, a_manifest())
    assert not any(path.exists() for path in left)
    assert shard.exists()


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RecordError, match="neither empty nor a run"):
        RunStore.create(tmp_path, a_manifest())
    with pytest.raises(RecordError, match="not a run"):
        RunStore.open(tmp_path)
    with pytest.raises(RecordError, match="cannot make the folder"):
        RunStore.create(tmp_path / "thesis.tex" / "run", a_manifest())


def test_damaged_shards_are_one_line_that_names_the_file(store: RunStore) -> None:
    shard = store.write_shard("pgd", a_frame(*(a_row(i) for i in range(10))))
    whole = shard.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:cut])
        with pytest.raises(RecordError, match=shard.name) as caught:
            store.read_step("pgd")
        assert "not a whole Parquet file" in str(caught.value)
    shard.write_bytes(whole)
    shard.rename(shard.with_name("00000000-00000009-0123456789abcdef.parquet"))
    with pytest.raises(RecordError, match="name does not fit"):
        store.read_step("pgd")


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_no_flipped_byte_gives_anything_but_rows_or_one_line(at: float, value: int) -> None:
    from leaderboards import shard

    table = to_table(a_frame(*(a_row(i, "broken", detail="x") for i in range(5))))
    data = bytearray(shard.encode(table, "id", "pgd"))
    data[int(at * len(data))] = value
    with contextlib.suppress(RecordError):
        assert shard.decode(bytes(data), "id", "pgd", 5).schema.equals(SCHEMA)


def test_a_shard_of_another_run_or_step_is_refused(store: RunStore, tmp_path: Path) -> None:
    other = RunStore.create(tmp_path / "other", a_manifest(seed=1))
    foreign = other.write_shard("pgd", a_frame(a_row(1)))
    here = store.folder / "shards" / "pgd" / foreign.name
    here.parent.mkdir(parents=True)
    here.write_bytes(foreign.read_bytes())
    with pytest.raises(RecordError, match="another run"):
        store.read_step("pgd")
    here.write_bytes(store.write_shard("clean", a_frame(a_row(1))).read_bytes())
    with pytest.raises(RecordError, match="another step"):
        store.read_step("pgd")


def _put(store: RunStore, table: pa.Table, mark: bool = True) -> None:
    path = store.write_shard("pgd", a_frame(a_row(1)))
    metadata = pq.read_schema(path).metadata if mark else None
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_hostile_tables_are_refused(store: RunStore) -> None:
    good = to_table(a_frame(a_row(1)))

    def changed(name: str, value: Any, field: Any = None) -> pa.Table:
        place = good.schema.get_field_index(name)
        return good.set_column(place, field or name, pa.array([value]))

    cases = {
        "not a shard of a run": (good, False),
        "missing columns: label": (good.drop_columns(["label"]), True),
        "unknown columns: run": (good.append_column("run", pa.array(["<script>"])), True),
        "column margin has to be double": (changed("margin", "0.5"), True),
        "twice": (good.append_column("label", good["label"]), True),
        "11 rows": (pa.concat_tables([good] * 11), True),
        "detail of": (changed("detail", "x" * 10**6, SCHEMA.field("detail")), True),
        "not finite": (changed("margin", np.nan, SCHEMA.field("margin")), True),
    }
    for message, (table, mark) in cases.items():
        for path in store.shard_paths("pgd"):
            path.unlink()
        _put(store, table, mark)
        with pytest.raises(RecordError, match=message):
            store.read_step("pgd")


def test_links_out_of_the_record_and_odd_files_are_refused(store: RunStore, tmp_path: Path) -> None:
    shard = store.write_shard("pgd", a_frame(a_row(1)))
    outside = tmp_path / "outside.parquet"
    shard.rename(outside)
    shard.symlink_to(outside)
    with pytest.raises(RecordError, match="leads out of the record"):
        store.read_step("pgd")
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(RecordError, match="not a regular file"):
        store.read_step("pgd")
    shard.unlink()
    (shard.parent / "notes.txt").write_text("x")
    with pytest.raises(RecordError, match=r"notes\.txt is not a shard"):
        store.read_step("pgd")
    shard.parent.rename(tmp_path / "moved")
    shard.parent.symlink_to(tmp_path / "moved")
    with pytest.raises(RecordError, match="leads out of the record"):
        store.read_step("pgd")
    (store.folder / "manifest.json").unlink()
    (store.folder / "manifest.json").symlink_to("/etc/hostname")
    with pytest.raises(RecordError, match="leads out of the record"):
        RunStore.open(store.folder)


def test_a_folder_that_cannot_be_changed_is_one_line(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    left = store.folder / ".manifest.json.00.tmp"
    left.write_bytes(b"half")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        with pytest.raises(RecordError, match=r"cannot remove .*tmp: Permission denied"):
            RunStore.create(store.folder, a_manifest())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refused)
        with pytest.raises(RecordError, match=r"cannot read .*: Permission denied"):
            RunStore.open(store.folder)


@pytest.fixture
def small_files_only() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
def test_a_write_cut_short_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write_bytes(path, b"old")
    with pytest.raises(RecordError, match=r"cannot write .*file: File too large"):
        atomic_write_bytes(path, b"x" * 5000)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == {"file"}


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store.write_shard("pgd", a_frame(a_row(1)))
    before = files(store.folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RecordError, match="No space left on device") as caught:
            store.write_shard("pgd", a_frame(a_row(2)))
    assert caught.value.exit_code == 6
    assert files(store.folder) == before
    store.write_shard("pgd", a_frame(a_row(2)))
    assert store.completed_ids("pgd").tolist() == [1, 2]


def test_an_interrupt_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "file", b"x")
    assert files(tmp_path) == set()


def test_files_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        atomic_write_bytes(tmp_path / "file", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_frame_may_hold_pandas_own_nullable_types(store: RunStore) -> None:
    frame = a_frame(a_row(1), a_row(2, "broken")).convert_dtypes()
    store.write_shard("pgd", frame)
    assert store.read_step("pgd")["restart"].tolist() == [pd.NA, 0]
    assert store.manifest.protocol.steps == (PGD,)

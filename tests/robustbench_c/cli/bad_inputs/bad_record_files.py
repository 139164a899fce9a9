"""Runs that something is wrong with, and the other files that boards, gates and reports read."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_cases import ESCAPE
from hostile_records import (
    a_record,
    disagreeing,
    edit,
    many,
    only,
    removed,
    replace_bytes,
    rewrite,
    set_in,
    with_column,
)
from record_makers import a_manifest

from leaderboards.store import RunStore

Make = Callable[[Path], object]
SHARD = "shards/pgd/*.parquet"


def run(*changes: Callable[[Path], object]) -> Make:
    """A sound record, and then what was done to it."""

    def make(path: Path) -> None:
        a_record(path)
        for change in changes:
            change(path)

    return make


def runs(*makes: Make) -> Make:
    def make(path: Path) -> None:
        path.mkdir()
        for i, each in enumerate(makes):
            each(path / f"run-{i}")

    return make


def replaced(name: str, make: Make) -> Callable[[Path], object]:
    """Another thing in the place of a file of a run."""

    def change(folder: Path) -> None:
        path = folder / name if "*" not in name else only(folder, name)
        path.unlink()
        make(path)

    return change


def other(path: Path) -> None:
    model = a_manifest().model.model_copy(update={"sha256": "c" * 64})
    a_record(path, model=model)


def begun(path: Path) -> None:
    RunStore.create(path, a_manifest())


def zipped(*more: tuple[str, bytes]) -> Make:
    """A sound record as an archive, with further entries."""

    def make(path: Path) -> None:
        folder = path.with_name(f".{path.name}")
        a_record(folder)
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, f"run/{file.relative_to(folder)}")
            for name, content in more:
                archive.writestr(name, content)
        shutil.rmtree(folder)

    return make


def timings(change: Callable[[Any], object] = lambda told: None) -> Make:
    """A file of pytest --benchmark-json, changed."""
    times = {"median": 1.0, "q1": 0.9, "q3": 1.1, "rounds": 5}
    rows = [{"name": n, "fullname": f"t.py::{n}", "stats": dict(times)} for n in ("test_a",)]
    told = {"benchmarks": rows}
    return lambda path: path.write_text(json.dumps(change(told) or told))


def text(content: str) -> Make:
    return lambda path: path.write_text(content, encoding="utf-8")


def link_to(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def fill(size: int) -> Make:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


RECORD_FILES: dict[str, Make] = {
    "run": run(),
    "run-other": other,
    "folder.md": Path.mkdir,
    "run-begun": begun,
    "run-no-manifest": run(removed("manifest.json")),
    "run-manifest-folder": run(replaced("manifest.json", Path.mkdir)),
    "run-manifest-pipe": run(replaced("manifest.json", os.mkfifo)),
    "run-manifest-link": run(replaced("manifest.json", link_to("/etc/passwd"))),
    "run-manifest-loop": run(replaced("manifest.json", link_to("manifest.json"))),
    "run-manifest-huge": run(replaced("manifest.json", fill(9 << 30))),
    "run-manifest-empty": run(replaced("manifest.json", Path.touch)),
    "run-manifest-junk": run(replace_bytes("manifest.json", bytes(range(256)))),
    "run-manifest-list": run(replace_bytes("manifest.json", b"[]")),
    "run-manifest-deep": run(replace_bytes("manifest.json", b'{"a":' * 100_000)),
    "run-manifest-nan": run(set_in("manifest.json", "protocol.threat.eps", float("nan"))),
    "run-manifest-type": run(set_in("manifest.json", "seed", "0")),
    "run-manifest-extra": run(set_in("manifest.json", ESCAPE, 1)),
    "run-manifest-ids": run(set_in("manifest.json", "data.ids", "0-999999999999")),
    "run-manifest-step": run(set_in("manifest.json", "protocol.steps.0.name", "../pgd")),
    "run-manifest-hash": run(set_in("manifest.json", "protocol_sha256", "0" * 64)),
    "run-manifest-version": run(set_in("manifest.json", "schema_version", 99)),
    "run-shard-empty": run(replace_bytes(SHARD, b"")),
    "run-shard-junk": run(replace_bytes(SHARD, bytes(range(256)) * 16)),
    "run-shard-cut": run(replace_bytes(SHARD, lambda whole: whole[: len(whole) // 2])),
    "run-shard-folder": run(replaced(SHARD, Path.mkdir)),
    "run-shard-pipe": run(replaced(SHARD, os.mkfifo)),
    "run-shard-link": run(replaced(SHARD, link_to("/etc/passwd"))),
    "run-shard-many": run(rewrite("pgd", many(100_000))),
    "run-shard-verdict": run(rewrite("pgd", with_column("verdict", ["magic"]))),
    "run-shard-id": run(rewrite("pgd", with_column("sample_id", [77]))),
    "run-shard-nan": run(rewrite("pgd", with_column("margin", [float("nan")]))),
    "run-shard-other-run": run(rewrite("pgd", lambda table: table, identity="0" * 64)),
    "run-shard-stranger": run(lambda path: text("mine")(path / "shards" / "pgd" / "notes.txt")),
    "run-disagreeing": run(disagreeing),
    "run-both": run(
        rewrite("crown", with_column("sample_id", [1])),
    ),
    "run-summary-junk": run(replace_bytes("summary.json", b"\xff\xfe")),
    "run-summary-lies": run(edit("summary.json", '"complete": true', '"complete": false')),
    "runs-bad": runs(run(removed("manifest.json")), run(replace_bytes(SHARD, b""))),
    "runs-none": Path.mkdir,
    "junk.zip": lambda path: path.write_bytes(bytes(range(256))),
    "empty.zip": Path.touch,
    "escape.zip": zipped(("../evil", b"x")),
    "absolute.zip": zipped(("/tmp/evil", b"x")),
    "twice.zip": zipped(("run/Manifest.json", b"{}")),
    "two.zip": zipped(("other/manifest.json", b"{}")),
    "nested.zip": zipped(("run/more.zip", b"PK\x03\x04")),
    "baseline-junk.json": text("{"),
    "baseline-list.json": text("[]"),
    "baseline-deep.json": text("[" * 100_000),
    "baseline-pipe.json": os.mkfifo,
    "baseline-huge.json": fill(9 << 30),
    "baseline-extra.json": text(json.dumps({ESCAPE: 1})),
    "times.json": timings(),
    "times-none.json": timings(lambda told: {"benchmarks": []}),
    "times-nan.json": timings(lambda told: told["benchmarks"][0]["stats"].update(median=1e400)),
    "times-zero.json": timings(lambda told: told["benchmarks"][0]["stats"].update(q1=0.0)),
    "times-text.json": timings(lambda told: told["benchmarks"][0].update(name=3)),
    "times-huge.json": fill(9 << 30),
    "slices-header.csv": text("id,name\n0,a\n"),
    "slices-cells.csv": text("sample_id,slice\n0\n"),
    "slices-id.csv": text(f"sample_id,slice\n{ESCAPE.split()[0]},a\n"),
    "slices-twice.csv": text("sample_id,slice\n0,a\n0,b\n"),
    "slices-stranger.csv": text("sample_id,slice\n99,a\n"),
    "slices-none.csv": text("sample_id,slice\n"),
    "slices-many.csv": text("sample_id,slice\n" + "".join(f"{i},{i}\n" for i in range(300))),
    "slices-huge.csv": fill(9 << 30),
    "site": lambda path: (path.mkdir(), text("mine")(path / "notes.txt")),
}

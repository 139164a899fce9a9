"""Records of strangers: each is refused with one line, in short time and little memory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hostile_records import (
    FAR,
    a_record,
    claims_fewer,
    diagnosed,
    disagreeing,
    edit,
    many,
    only,
    removed,
    replace_bytes,
    rewrite,
    safetensors,
    set_in,
    with_column,
)
from record_makers import CROWN, PGD, a_manifest

from leaderboards.entries import find_runs, read_entries, read_entry
from leaderboards.errors import RecordError
from leaderboards.manifest import Protocol
from leaderboards.store import RunStore
from leaderboards.validation import tree
from leaderboards.validation.findings import Findings
from leaderboards.validation.validate import validate

SCRIPT = "<script>alert(1)</script>"
SECONDS = 2.0
MEMORY = 64 << 20
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_record(tmp_path_factory.mktemp("valid") / "run").folder


@pytest.fixture
def run(valid: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid, tmp_path / "run"))


def looked_at(run: Path) -> Findings:
    """The findings of a run; made in time and memory, each one printable line."""
    begun, held = time.process_time(), pa.total_allocated_bytes()
    found = validate(run)
    assert time.process_time() - begun < SECONDS
    assert pa.total_allocated_bytes() - held < MEMORY
    for each in found.found:
        assert all(text.isprintable() for text in (each.place, each.problem, each.advice))
        assert len(each.problem) <= 600
    json.dumps(found.as_json(), allow_nan=False)
    return found


def same(table: Any) -> Any:
    return table


def link(pattern: str, to: str) -> Change:
    def change(run: Path) -> None:
        path = only(run, pattern)
        if path.is_dir():
            shutil.move(path, run.parent / "elsewhere")
        else:
            path.unlink()
        path.symlink_to(run.parent / to)

    return change


def fifo(run: Path) -> None:
    path = only(run, "shards/pgd/*.parquet")
    path.unlink()
    os.mkfifo(path)


def a_socket(run: Path) -> None:
    here = Path.cwd()
    os.chdir(run)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("summary.sock")
    finally:
        os.chdir(here)


def copied(pattern: str, to: str) -> Change:
    def change(run: Path) -> None:
        source = only(run, pattern)
        (run / to).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, run / to / source.name)

    return change


def renamed(pattern: str, name: str) -> Change:
    return lambda run: only(run, pattern).rename(run / name)  # type: ignore[return-value]


def deep(run: Path) -> None:
    (run / "shards/clean/a/b/c/d").mkdir(parents=True)


def folder_for(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return change


M, S = "manifest.json", "summary.json"
NESTED = '{"a":' * 100_000
REFUSED: dict[str, tuple[Change, str]] = {
    "script tag as run id": (set_in(M, "run_id", SCRIPT), "run_id"),
    "path as run id": (set_in(M, "run_id", "../../etc"), "run_id"),
    "path as step name": (set_in(M, "protocol.steps.0.name", "../clean"), "steps.0.name"),
    "absolute step name": (set_in(M, "protocol.steps.0.name", "/tmp/x"), "steps.0.name"),
    "the name of the first step": (set_in(M, "protocol.steps.0.name", "clean"), "steps.0.name"),
    "number as text": (set_in(M, "seed", "0"), "valid integer"),
    "eps as text": (set_in(M, "protocol.threat.eps", "0.1"), "valid number"),
    "truth as number": (set_in(M, "reproducible", 1), "valid boolean"),
    "list as number": (set_in(M, "model.parameters", [1]), "model.parameters"),
    "NaN": (edit(M, '"eps": 0.1', '"eps": NaN'), "NaN"),
    "NaN in the card": (set_in(M, "model.card", {"accuracy": float("nan")}), "NaN"),
    "infinity": (edit(M, '"eps": 0.1', '"eps": -Infinity'), "Infinity"),
    "beyond float64": (edit(M, '"eps": 0.1', '"eps": 1e999'), "beyond float64"),
    "a number of 5,000 digits": (edit(M, '"seed": 0', f'"seed": {"9" * 5000}'), "seed|digits"),
    "10^9 samples": (set_in(M, "data.ids", "0-999999999"), "at most"),
    "ids that descend": (set_in(M, "data.ids", "5-9,0-3"), "ascending"),
    "ids that are paths": (set_in(M, "data.ids", "../../etc/passwd"), "ranges"),
    "a name of 10^6 letters": (set_in(M, "model.name", "a" * 10**6), "500 characters"),
    "future manifest": (set_in(M, "schema_version", 99), "format this version cannot read"),
    "deep manifest": (replace_bytes(M, NESTED.encode()), "nested deeper"),
    "deep card": (set_in(M, "model.card", json.loads("[" * 90 + "]" * 90)), "nested deeper"),
    "not UTF-8": (replace_bytes(M, b'{"run_id": "\xff"}'), "not UTF-8"),
    "cut short": (replace_bytes(M, lambda data: data[:100]), "not JSON"),
    "empty": (replace_bytes(M, b""), "not JSON"),
    "a list": (replace_bytes(M, b"[]"), "object"),
    "a field twice": (edit(M, '"seed": 0', '"seed": 1, "seed": 0'), "twice"),
    "unknown field": (set_in(M, "verified", True), "verified"),
    "wrong protocol hash": (set_in(M, "protocol_sha256", "0" * 64), "not the hash of protocol"),
    "changed protocol": (set_in(M, "protocol.threat.eps", 0.2), "not the hash of protocol"),
    "wrong model hash": (set_in(M, "model.sha256", "0" * 64), "of another run"),
    "wrong data hash": (set_in(M, "data.sha256", "0" * 64), "of another run"),
    "no manifest": (removed(M), "manifest.json is missing"),
    "manifest is a folder": (folder_for(M), "not a regular file"),
    "manifest is a link": (link(M, "elsewhere"), "a symbolic link"),
    "no clean rows": (removed("shards/clean/*"), "not what the shards give"),
    "a missing shard": (removed("shards/crown/*"), "not what the shards give"),
    "a shard cut short": (replace_bytes("shards/pgd/*", lambda d: d[:-9]), "not a whole Parquet"),
    "an empty shard": (replace_bytes("shards/pgd/*", b""), "not a whole Parquet"),
    "text as a shard": (replace_bytes("shards/pgd/*", b"PAR1" * 99), "not a whole Parquet"),
    "a linked shard": (link("shards/pgd/*", "elsewhere"), "a symbolic link"),
    "a linked folder": (link("shards/pgd", "elsewhere"), "a symbolic link"),
    "linked shards": (link("shards", "elsewhere"), "a symbolic link"),
    "a pipe": (fifo, "a named pipe"),
    "a socket": (a_socket, "a socket"),
    "a name of two lines": (renamed("shards/pgd/*", "shards/pgd/a\nb"), "cannot be shown"),
    "a name that is none": (renamed("shards/pgd/*", "shards/pgd/..parquet"), "not the name of a"),
    "folders in folders": (deep, "too deep"),
    "a shard of another step": (copied("shards/pgd/*", "shards/crown"), "of another step"),
    "shards of no step": (copied("shards/pgd/*", "shards/zzz"), "no step of this run"),
    "a shard of another run": (rewrite("pgd", same, identity="0" * 64), "of another run"),
    "future shard": (rewrite("pgd", same, schema=99), "another format"),
    "a shard without a mark": (rewrite("pgd", same, schema=None), "another format"),
    "an illegal verdict": (rewrite("pgd", with_column("verdict", ["certified"])), "cannot come"),
    "a verdict of markup": (rewrite("pgd", with_column("verdict", [SCRIPT])), "cannot come"),
    "NaN in a shard": (rewrite("pgd", with_column("margin", [np.nan])), "not finite"),
    "infinity in a shard": (rewrite("pgd", with_column("distance", [np.inf])), "not finite"),
    "a negative count": (rewrite("pgd", with_column("forwards", [-1])), "negative"),
    "a class of none": (rewrite("pgd", with_column("label", [7])), "there are 3 classes"),
    "a sample of none": (rewrite("pgd", with_column("sample_id", [99])), "not one of the run"),
    "numbers as text in a shard": (
        rewrite("pgd", with_column("margin", ["-0.5"] * 9, pa.string())),
        "has to be double",
    ),
    "a column more": (rewrite("pgd", lambda t: t.append_column("x", t["work"])), "unknown columns"),
    "a column less": (rewrite("pgd", lambda t: t.drop_columns(["work"])), "missing columns"),
    "a column of huge lists": (
        rewrite("pgd", with_column("work", [[0] * 10**5] * 9, pa.list_(pa.int64()))),
        "has to be int64",
    ),
    "too many rows": (rewrite("pgd", many(100_000)), "100000 rows for a run of 10"),
    "more rows than it claims": (claims_fewer, "rows that it claims|not a whole Parquet"),
    "20 MB of text": (rewrite("pgd", with_column("detail", ["x" * (20 << 20)])), "rows of"),
    "text of 1,001 letters": (rewrite("pgd", with_column("detail", ["x" * 1001])), "1001 charac"),
    "shards that disagree": (disagreeing, "different results for one sample: 9"),
    "certified and broken": (
        rewrite("crown", with_column("sample_id", [1])),
        "name does not fit|certified and broken",
    ),
    "broken beyond eps": (rewrite("pgd", with_column("distance", [0.5])), "not within eps"),
    "broken of positive margin": (rewrite("pgd", with_column("margin", [0.5])), "margin"),
    "certified of negative bound": (rewrite("crown", with_column("bound", [-1.0])), "bound is not"),
    "more certified": (
        rewrite("crown", with_column("verdict", ["certified"] * 7)),
        "counts is not what the shards give",
    ),
    "better by hand": (set_in(S, "robust_accuracy.k", 9), "9 of 10 gives 0.9"),
    "better in all of it": (
        set_in(S, "robust_accuracy", {"k": 9, "n": 10, "value": 0.9, "lower": 0.55, "upper": 1.0}),
        "robust_accuracy is not what the shards give",
    ),
    "narrower interval": (set_in(S, "clean_accuracy.lower", 0.89), "gives 0.55"),
    "counts that do not add up": (set_in(S, "counts.certified", 9), "add up to 14"),
    "certified above empirical": (
        set_in(S, "certified_accuracy", {"k": 9, "n": 10, "value": 0.9, "lower": 0.55, "upper": 1}),
        "above robust_accuracy",
    ),
    "a rate of more than all": (set_in(S, "clean_accuracy.k", 11), "11 of 10"),
    "flags taken off": (set_in(S, "reliable", True), "reliable is not what the shards give"),
    "summary of another run": (set_in(S, "identity", "0" * 64), "the manifest gives"),
    "wrong content hash": (set_in(S, "steps.1.content_sha256", "0" * 64), "the rows give"),
    "less cost": (set_in(S, "cost.forwards", 1), "not the sum"),
    "future summary": (set_in(S, "schema_version", 2), "format this version cannot read"),
    "deep summary": (replace_bytes(S, NESTED.encode()), "nested deeper"),
    "text in the summary": (set_in(S, "samples", "10"), "valid integer"),
    "NaN in the summary": (edit(S, '"seconds": 2.5', '"seconds": NaN'), "NaN"),
    "no summary": (removed(S), "summary.json is missing"),
    "summary is a folder": (folder_for(S), "not a regular file"),
    "summary is a link": (link(S, "elsewhere"), "a symbolic link"),
    "diagnostics of nothing": (
        lambda run: (run / "diagnostics.json").write_text("{}") and None,
        "diagnostics.json",
    ),
    "a curve of nothing": (
        lambda run: (run / "accuracy-curve.csv").write_text(SCRIPT) and None,
        "not what the shards give",
    ),
}


UNSEEN = ("folders in folders", "a socket")
"""Beside what boards and reports open."""


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_records_are_refused(name: str, run: Path) -> None:
    change, problem = REFUSED[name]
    change(run)
    found = looked_at(run)
    assert found.errors, found
    with pytest.raises(AssertionError, match=problem):  # one of its lines says what is wrong
        raise AssertionError([f"{each.place}: {each.problem}" for each in found.found])
    if name not in UNSEEN:
        with pytest.raises(RecordError) as refused:  # no board and no report takes it, either
            read_entry(run)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) <= 600


def changed(**changes: Any) -> Change:
    ids, clean = np.array([1, 2]), np.full((2, 1, 2, 2), 0.5, dtype=np.float32)
    whole = {"ids": ids, "clean": clean, "adversarial": clean + np.float32(FAR)}
    return replace_bytes("adversarial/pgd/*", safetensors(**(whole | changes)))


def moved(by: float, at: tuple[int, ...] = (0, 0, 0, 0)) -> Any:
    found = np.full((2, 1, 2, 2), 0.5 + FAR, dtype=np.float32)
    found[at] = 0.5 + by
    return found


EXAMPLES: dict[str, tuple[Change, str]] = {
    "missing": (removed("adversarial/pgd/*"), "missing: 2 examples"),
    "cut short": (replace_bytes("adversarial/pgd/*", lambda d: d[:-4]), "cut short"),
    "a pickle": (replace_bytes("adversarial/pgd/*", b"\x80\x04cos\nsystem\n."), "safetensors"),
    "endless header": (replace_bytes("adversarial/pgd/*", b"\xff" * 64), "not a safetensors"),
    "deep header": (
        replace_bytes("adversarial/pgd/*", b"\x50\xc3\0\0\0\0\0\0" + b"[" * 50_000),
        "not a safetensors",
    ),
    "one tensor more": (
        changed(extra={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
        "alone",
    ),
    "tensors that overlap": (
        changed(adversarial=np.zeros(0, dtype=np.float32)),
        "is empty",
    ),
    "more samples than bytes": (
        replace_bytes("adversarial/pgd/*", lambda d: d.replace(b"[2, 1, 2, 2]", b"[9, 9, 9, 9]")),
        "does not fit its bytes",
    ),
    "doubles": (changed(clean=np.full((2, 1, 2, 2), 0.5)), "clean is not F32"),
    "another shape": (changed(clean=np.full((2, 4), 0.5, dtype=np.float32)), "shapes"),
    "other samples": (changed(ids=np.array([1, 7])), "not those of the shard"),
    "one sample twice": (changed(ids=np.array([1, 1])), "not those of the shard"),
    "NaN": (changed(adversarial=moved(np.nan)), "not finite"),
    "beyond eps": (changed(adversarial=moved(0.25)), "beyond eps"),
    "further than its row says": (changed(adversarial=moved(0.07)), "as its row says"),
    "out of the box": (changed(adversarial=moved(0.75)), "leaves the input box"),
    "another folder": (copied("adversarial/pgd/*", "adversarial/zzz"), "no step of this run"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_stored_examples_are_checked_without_the_model(name: str, run: Path) -> None:
    change, problem = EXAMPLES[name]
    change(run)
    errors = [each for each in looked_at(run).found if each.severity == "error"]
    assert any(problem in each.problem for each in errors), errors


def test_a_feature_that_may_not_change_has_to_stay(tmp_path: Path) -> None:
    manifest = a_manifest()
    threat = manifest.protocol.threat.model_copy(update={"immutable": "2"})
    protocol = Protocol(threat=threat, steps=(PGD, CROWN), rules=manifest.protocol.rules)
    run = tmp_path / "run"
    a_record(run, protocol=protocol, protocol_sha256=protocol.sha256)
    problems = [each.problem for each in looked_at(run).found if each.severity == "error"]
    assert problems == ["sample 1: changes a feature that may not change (and 1 more)"]


def test_a_valid_record_has_no_finding(run: Path) -> None:
    assert looked_at(diagnosed(RunStore.open(run)).folder).found == ()


def test_whoever_removes_the_diagnostics_is_told_of(run: Path) -> None:
    diagnosed(RunStore.open(run))
    removed("diagnostics.json")(run)
    RunStore.open(run).write_summary()
    (found,) = looked_at(run).found
    assert (found.severity, found.place) == ("warning", "diagnostics.json")
    assert "nobody looked whether its attacks failed" in found.problem


def test_a_linked_folder_is_no_record(valid: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    link = tmp_path / "runs" / "link"
    link.symlink_to(valid)
    (found,) = looked_at(link).found
    assert (found.severity, "symbolic link" in found.problem) == ("error", True)
    for place in (link, tmp_path / "runs"):
        entries, refused = read_entries(find_runs([place]))
        assert (entries, [each.folder for each in refused]) == ([], [link])
        assert "a symbolic link" in refused[0].problem


def test_markup_where_text_is_legal_is_text(tmp_path: Path) -> None:
    manifest = a_manifest()
    model = manifest.model.model_copy(update={"name": SCRIPT, "card": {SCRIPT: SCRIPT}})
    data = manifest.data.model_copy(update={"classes": (SCRIPT, "javascript:alert(1)", "bag")})
    store = a_record(tmp_path / "run", model=model, data=data, notices=(SCRIPT,))
    run = diagnosed(store).folder
    assert [(f.severity, f.problem) for f in looked_at(run).found] == [("note", SCRIPT)]


def test_one_bad_file_hides_no_other(run: Path) -> None:
    replace_bytes("shards/pgd/*", b"PAR1")(run)
    set_in(S, "counts.certified", 9)(run)
    replace_bytes("adversarial/pgd/*", b"no")(run)
    rewrite("crown", with_column("bound", [-1.0]))(run)
    told = " ".join(f"{f.place} {f.problem}" for f in looked_at(run).found)
    for part in ("shards/pgd/", "counts add up to 14", "bound is not positive", "no shard"):
        assert part in told


def test_files_without_end_are_not_looked_at(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_FILES", 30)
    for i in range(40):
        (run / "shards" / "clean" / f"{i}.parquet").touch()
    (found,) = looked_at(run).found
    assert found.problem == "more than 30 files and folders"


def test_an_unfinished_run_is_valid_but_not_ranked(run: Path) -> None:
    removed("shards/crown/*")(run)
    removed(S)(run)
    found = looked_at(run)
    assert (found.errors, [f.severity for f in found.found]) == (0, ["warning"])
    assert "not ranked" in found.found[0].problem

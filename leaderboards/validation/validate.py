"""Every check of a record that needs no model, each as far as it gets on its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from leaderboards.cells import Cells
from leaderboards.columns import content_sha256, to_frame
from leaderboards.diagnostics import read_diagnostics
from leaderboards.errors import ContradictionError, RecordError
from leaderboards.examples import FOLDER
from leaderboards.files import is_temporary, list_folder, read_bytes
from leaderboards.manifest import MANIFEST_SCHEMA, MAX_MANIFEST_BYTES, Manifest
from leaderboards.sample_ids import format_ids
from leaderboards.settle import sample_verdicts
from leaderboards.shard import FILE_NAME, without_repetitions
from leaderboards.store import MANIFEST, SHARDS, SUMMARY, RunStore
from leaderboards.strict_json import check_json
from leaderboards.summary import Summary
from leaderboards.validation.archive import unpack
from leaderboards.validation.findings import Finding, Findings
from leaderboards.validation.remarks import remarks
from leaderboards.validation.stored import check_examples
from leaderboards.validation.told import REBUILD, check_told, complaints, read_told
from leaderboards.validation.tree import look
from leaderboards.verdicts import CLEAN_STEP
from leaderboards.verify import Check, file_checks, row_checks, stray_folders

_DAMAGED = "ask for the file again, or remove it and resume the run"
_FORGED = "no run writes this: do not trust the record"

Rows = dict[Path, pd.DataFrame]


def validate(place: Path) -> Findings:
    """Check a record that anybody may have written: a run's folder, or one as a .zip.

    Raises:
        RecordError: There is no such file or folder.
    """
    if place.is_symlink():
        problem = "a symbolic link, not a record"
        return Findings.of(str(place), None, [Finding("error", ".", problem, "name the folder")])
    if place.is_dir():
        run_id, found = _check_folder(place)
        return Findings.of(str(place), run_id, found)
    if not place.exists():
        raise RecordError(f"no such file or folder: {place}")
    with TemporaryDirectory(prefix="robustbench-c-") as temporary:
        try:
            folder = unpack(place, Path(temporary))
        except RecordError as error:
            refused = Finding("error", place.name, str(error), "nothing of it was unpacked")
            return Findings.of(str(place), None, [refused])
        run_id, found = _check_folder(folder)
        return Findings.of(str(place), run_id, found)


def _check_folder(folder: Path) -> tuple[str | None, list[Finding]]:
    found, safe = look(folder)
    if not safe:
        return None, found
    manifest, problems = _read_manifest(folder)
    found += problems
    if manifest is None:
        return None, found
    try:
        store = RunStore(folder, manifest)
        found += _check_run(store)
    except RecordError as error:
        found.append(Finding("error", ".", _within(folder, str(error))))
    except MemoryError:
        found.append(Finding("error", ".", "asks for more memory than a record may", _FORGED))
    return manifest.run_id, found


def _read_manifest(folder: Path) -> tuple[Manifest | None, list[Finding]]:
    try:
        data = read_bytes(folder, folder / MANIFEST, MAX_MANIFEST_BYTES)
        check_json(data)
        return Manifest.model_validate_json(data), []
    except ValidationError as error:
        return None, complaints(error, MANIFEST, MANIFEST_SCHEMA)
    except RecordError as error:
        return None, [Finding("error", MANIFEST, _within(folder, str(error)), _FORGED)]


def _check_run(store: RunStore) -> list[Finding]:
    tables, bad = _read_shards(store)
    found = [*bad, *_strays(store)]
    frames, disagreeing = _joined(store, tables)
    found += disagreeing
    if CLEAN_STEP in {Path(each.place).parent.name for each in bad}:
        problem = "not checked, since rows of clean cannot be read"
        found.append(Finding("note", SHARDS, f"how the steps follow each other is {problem}"))
    else:
        for check in row_checks(store, {step: Cells(rows) for step, rows in frames.items()}):
            found += _guarded(store, check, SHARDS, _FORGED)
        found += _contradictions(store, frames)
    told, problems = read_told(store)
    found += problems
    if told is not None:
        found += check_told(told, store.manifest)
        found += _hashes(told, store, tables, {Path(each.place).parent.name for each in bad})
    if not bad and not disagreeing:
        for check in file_checks(store, frames) if not problems else ():
            found += _guarded(store, check, ".", REBUILD)
        found += _diagnostics(store)
    rows = {path: to_frame(table) for path, table in tables.items()}
    found += _guarded_examples(store, rows)
    return [*_without_echoes(found), *remarks(store, frames, told)]


def _read_shards(store: RunStore) -> tuple[dict[Path, pa.Table], list[Finding]]:
    """Read every shard; one that is damaged hides no other."""
    tables, found = {}, []
    for step in store.steps:
        try:
            paths = list_folder(store.folder, store.folder / SHARDS / step)
        except RecordError as error:
            found.append(_of_file(store, store.folder / SHARDS / step, error))
            continue
        for path in paths:
            if is_temporary(path):
                continue
            try:
                if not FILE_NAME.fullmatch(path.name):
                    raise RecordError("not the name of a shard")
                tables[path] = store.read_shard(step, path)
            except RecordError as error:
                found.append(_of_file(store, path, error))
    return tables, found


def _of_file(store: RunStore, path: Path, error: RecordError) -> Finding:
    problem = str(error).removeprefix(f"{path}: ")
    place = str(path.relative_to(store.folder))
    return Finding("error", place, _within(store.folder, problem), _DAMAGED)


def _strays(store: RunStore) -> Iterator[Finding]:
    for problem in stray_folders(store):
        yield Finding("error", SHARDS, _within(store.folder, problem), "remove it")


def _joined(
    store: RunStore, tables: dict[Path, pa.Table]
) -> tuple[dict[str, pd.DataFrame], list[Finding]]:
    """The rows of each step; where shards disagree about a sample, the first of them."""
    frames, found = {}, []
    for step in store.steps:
        parts = [table for path, table in tables.items() if path.parent.name == step]
        table = pa.concat_tables(parts) if parts else store.layout.schema.empty_table()
        try:
            table = without_repetitions(table, step)
        except RecordError as error:
            found.append(Finding("error", f"{SHARDS}/{step}", str(error), _FORGED))
            _, first = np.unique(table["sample_id"].to_numpy(), return_index=True)
            table = table.take(first)
        frames[step] = to_frame(table)
    return frames, found


def _guarded(store: RunStore, check: Check, place: str, advice: str) -> list[Finding]:
    try:
        problems = check()
    except ContradictionError:
        return []  # has a finding of its own
    except RecordError as error:
        problems = [str(error)]
    return [Finding("error", place, _within(store.folder, line), advice) for line in problems]


def _diagnostics(store: RunStore) -> Iterator[Finding]:
    try:
        read_diagnostics(store)
    except RecordError as error:
        yield Finding("error", ".", _within(store.folder, str(error)))


def _guarded_examples(store: RunStore, rows: Rows) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in check_examples(store, rows):
            found.append(finding)
    except RecordError as error:
        found.append(Finding("error", FOLDER, _within(store.folder, str(error)), _FORGED))
    return found


def _contradictions(store: RunStore, frames: dict[str, pd.DataFrame]) -> Iterator[Finding]:
    try:
        sample_verdicts(frames, store.manifest.data.sample_ids)
    except ContradictionError as error:
        ids = format_ids(error.sample_ids)
        problem = f"both certified and broken (certified above empirical): sample {ids}"
        yield Finding("error", SHARDS, problem, "proof or example is wrong: the run has no result")


def _hashes(
    told: Summary, store: RunStore, tables: dict[Path, pa.Table], damaged: set[str]
) -> Iterator[Finding]:
    """Hashes of the rows, of the steps whose shards are all readable."""
    for step in told.steps:
        parts = [table for path, table in tables.items() if path.parent.name == step.name]
        if step.name in damaged or step.name not in store.steps:
            continue
        table = pa.concat_tables(parts) if parts else store.layout.schema.empty_table()
        try:
            own = content_sha256(without_repetitions(table, step.name))
        except RecordError:
            continue  # has a finding of its own
        if own != step.content_sha256:
            place = f"{SUMMARY}: steps.{step.name}.content_sha256"
            problem = f"{step.content_sha256[:16]}..., but the rows give {own[:16]}..."
            yield Finding("error", place, problem, REBUILD)


def _without_echoes(found: list[Finding]) -> list[Finding]:
    """Leave out what quotes another finding: a check that met the same damaged file."""
    quoted = [each.problem for each in found if each.place not in (SHARDS, ".", FOLDER)]
    return [
        each
        for each in found
        if each.place not in (SHARDS, ".", FOLDER) or not any(q in each.problem for q in quoted)
    ]


def _within(folder: Path, text: str) -> str:
    """A message with places from the record's folder on: archives have no other."""
    return text.replace(f"{folder}/", "").replace(str(folder), "the record")

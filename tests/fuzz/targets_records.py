"""Parsers of records: a run's parts, archives, baselines, timings, leases and records of jobs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hostile_records import KEY, a_record, diagnosed, only
from hypothesis import strategies as st
from mutations import NASTY, Drawn, as_json, of_bytes

from leaderboards.baseline import Baseline, read_baseline
from leaderboards.diagnostics import read_diagnostics
from leaderboards.entries import read_entry
from leaderboards.examples import read_examples
from leaderboards.manifest import parse_manifest
from leaderboards.report.slices import read_slices
from leaderboards.speed import REFERENCE, read_timings
from leaderboards.store import RunStore
from leaderboards.validation.told import check_told, read_told
from leaderboards.validation.validate import validate
from robustbench_c.leases import Leases
from robustbench_c.suites.job import Job
from robustbench_c.suites.joblog import JobLog, JobRecord, new_attempt

Target = tuple[Drawn, Callable[[bytes], object]]


def targets(folder: Path) -> dict[str, Target]:
    """By its name, each parser's inputs and the parser."""
    run = folder / "run"
    diagnosed(a_record(run))
    manifest = (run / "manifest.json").read_bytes()
    shard = only(run, "shards/pgd/*.parquet")
    told = json.loads(manifest)
    summary = json.loads((run / "summary.json").read_bytes())
    signs = json.loads((run / "diagnostics.json").read_bytes())
    examples = only(run, "adversarial/pgd/*")
    baseline = json.loads(Baseline.of(read_entry(run)).to_bytes())
    times = {"median": 1.0, "q1": 0.9, "q3": 1.1, "rounds": 5}
    row = {"name": "test_a", "fullname": "a", "stats": times,
           "extra_info": {"reference_workload": [1.0, 1.0, 1.1]}}  # fmt: skip
    unit = row | {"name": REFERENCE, "fullname": "b"}
    archive = _zip(run)
    return {
        "manifest": (as_json([told]), lambda data: parse_manifest(data, "manifest.json")),
        "shard": (
            st.one_of(of_bytes([shard.read_bytes()]), _tables(shard)),
            _within(shard, lambda: RunStore.open(run).summary()),
        ),
        "summary": (as_json([summary]), _within(run / "summary.json", lambda: _told(run))),
        "diagnostics": (
            as_json([signs]),
            _within(run / "diagnostics.json", lambda: read_diagnostics(RunStore.open(run))),
        ),
        "examples": (
            of_bytes([examples.read_bytes()]),
            _within(examples, lambda: read_examples(run, examples, (1, 2, 2))),
        ),
        "archive": (of_bytes([archive]), _in_file(folder / "run.zip", validate)),
        "baseline": (as_json([baseline]), _in_file(folder / "baseline.json", read_baseline)),
        "timings": (
            as_json([{"benchmarks": [row, unit]}]),
            _in_file(folder / "times.json", read_timings),
        ),
        "slices": (
            of_bytes([b"sample_id,slice\n0,a\n1,b\n2,'c d'\n"]),
            _in_file(folder / "slices.csv", read_slices),
        ),
        "lease": _lease(folder),
        "job record": _job(folder),
    }


def _told(run: Path) -> object:
    """What a summary.json says, held against itself."""
    store = RunStore.open(run)
    told, found = read_told(store)
    return found if told is None else list(check_told(told, store.manifest))


def _in_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return parse


def _within(path: Path, read: Callable[[], object]) -> Callable[[bytes], object]:
    """Put the input in the place of a file of the run, which is as it was afterwards."""
    whole = path.read_bytes()

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        try:
            return read()
        finally:
            path.write_bytes(whole)

    return parse


def _tables(shard: Path) -> Drawn:
    """Sound Parquet files of rows that are not."""
    table = pq.read_table(shard)
    names = table.schema.names
    value = st.one_of(st.sampled_from(NASTY), st.integers(-3, 12), st.floats(), st.text(max_size=4))
    change = st.tuples(st.sampled_from(names), st.integers(0, table.num_rows - 1), value)
    return st.lists(change, min_size=1, max_size=4).map(lambda each: _table(table, each))


def _table(table: pa.Table, changes: list[tuple[str, int, Any]]) -> bytes:
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    for name, row, value in changes:
        columns[name][row] = value
    arrays = []
    for field in table.schema:
        try:
            arrays.append(pa.array(columns[field.name], field.type))
        except (pa.ArrowException, ValueError, OverflowError, TypeError):
            arrays.append(table[field.name].combine_chunks())
    mark = {KEY: table.schema.metadata[KEY]}
    sink = io.BytesIO()
    made = pa.table(arrays, names=table.schema.names).replace_schema_metadata(mark)
    pq.write_table(made, sink, compression="zstd")
    return sink.getvalue()


def _zip(run: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(run.rglob("*")):
            if path.is_file():
                archive.write(path, f"run/{path.relative_to(run)}")
    return out.getvalue()


def _lease(folder: Path) -> Target:
    run = folder / "leased"
    leases = Leases(run)
    with leases.claim("pgd", "a"):
        (path,) = run.rglob("*.lease")
        held = json.loads(path.read_bytes())

    def parse(data: bytes) -> object:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        with leases.claim("pgd", "a") as mine:
            return mine

    return as_json([held]), parse


def _job(folder: Path) -> Target:
    out = folder / "suite"
    log = JobLog(out)
    log.prepare()
    job = Job("eval", ("--model=fmnist-cnn-pgd",))
    log.write(job, JobRecord(command=str(job), state="begun", attempt=new_attempt()))
    (path,) = log.folder.glob("*.json")
    told = json.loads(path.read_bytes())

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return [log.read(each) for each in log.ids()]

    return as_json([told]), parse

"""A small valid record, and what a stranger may do to one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record_makers import CROWN, PGD, a_frame, a_manifest, a_row, all_signs

from leaderboards.diagnostics import Diagnostics, write_diagnostics
from leaderboards.examples import example_path
from leaderboards.store import RunStore

FAR = 0.0625
KEY = b"robustbench-c"


def a_record(folder: Path, **changes: Any) -> RunStore:
    """A complete run of 10 samples: 1 wrong, 2 broken (stored), 5 certified, 2 undecided."""
    store = RunStore.create(folder, a_manifest((PGD, CROWN), **changes))
    store.write_shard("clean", a_frame(a_row(0, "wrong"), *(a_row(i) for i in range(1, 10))))
    broken = [a_row(i, "broken", distance=FAR) for i in (1, 2)]
    path = store.write_shard("pgd", a_frame(*broken, *(a_row(i) for i in range(3, 10))))
    nothing = {"prediction": None, "margin": None}
    proved = [a_row(i, "certified", **nothing) for i in range(3, 8)]
    unproved = [a_row(i, detail="unknown", method="crown", **nothing) for i in (8, 9)]
    store.write_shard("crown", a_frame(*proved, *unproved))
    clean = np.full((2, 1, 2, 2), 0.5, dtype=np.float32)
    place = example_path(folder, "pgd", path.name)
    place.parent.mkdir(parents=True)
    place.write_bytes(safetensors(np.array([1, 2]), clean, clean + np.float32(FAR)))
    store.write_summary()
    return store


def diagnosed(store: RunStore) -> RunStore:
    """The same of `a_record`, with diagnostics and no red flag."""
    looked_at = tuple(range(1, 10))
    write_diagnostics(store, Diagnostics(
        identity=store.manifest.identity(), looked_at=looked_at, measured=all_signs(9),
        forwards=1, backwards=1, seconds=0.5,
    ))  # fmt: skip
    store.write_summary()
    return store


def safetensors(ids: Any, clean: Any, adversarial: Any, **header: Any) -> bytes:
    """The bytes of a file of examples; `header` replaces entries of its header."""
    parts, told, at = [], {}, 0
    for name, array in (("ids", ids), ("clean", clean), ("adversarial", adversarial)):
        raw = array.tobytes()
        kind = {"int64": "I64", "float32": "F32", "float64": "F64"}[str(array.dtype)]
        told[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [at, at + len(raw)],
        }
        parts.append(raw)
        at += len(raw)
    text = json.dumps(told | header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def only(run: Path, pattern: str) -> Path:
    (path,) = run.glob(pattern)
    return path


def removed(pattern: str) -> Callable[[Path], None]:
    """Remove the one file that fits a pattern."""
    return lambda run: only(run, pattern).unlink()


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace text in a file of a run."""

    def change(run: Path) -> None:
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))

    return change


def set_in(name: str, place: str, value: Any) -> Callable[[Path], None]:
    """Set a value, by its dotted place, in a JSON file of a run; indices are numbers."""

    def change(run: Path) -> None:
        held = at = json.loads((run / name).read_text())
        *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
        for part in way:
            at = at[part]
        at[last] = value
        (run / name).write_text(json.dumps(held))

    return change


def replace_bytes(pattern: str, data: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Write other bytes into the one file that fits a pattern."""

    def change(run: Path) -> None:
        path = only(run, pattern)
        path.write_bytes(data if isinstance(data, bytes) else data(path.read_bytes()))

    return change


def rewrite(step: str, change: Callable[[Any], Any], **mark: Any) -> Callable[[Path], None]:
    """Change the table in a shard, or its mark, and keep its name."""

    def write(run: Path) -> None:
        path = only(run, f"shards/{step}/*.parquet")
        table = pq.read_table(path)
        told = json.loads(table.schema.metadata[KEY]) | mark
        changed = change(table).replace_schema_metadata({KEY: json.dumps(told)})
        pq.write_table(changed, path, compression="zstd")

    return write


def with_column(name: str, values: Any, kind: Any = None) -> Callable[[Any], Any]:
    """Replace a column of a table, or the first values of it."""

    def change(table: Any) -> Any:
        i = table.schema.get_field_index(name)
        field = table.schema.field(name)
        column = table[name].to_pylist()
        column[: len(values)] = values
        wanted = pa.field(name, kind or field.type, nullable=field.nullable)
        return table.set_column(i, wanted, pa.array(column, kind or field.type))

    return change


def many(n: int) -> Callable[[Any], Any]:
    """The first row of a table n times, which takes next to no bytes."""
    return lambda table: table.take(pa.array(np.zeros(n, dtype=np.int32)))


def claims_fewer(run: Path) -> None:
    """A shard of 100,000 rows of which the end of the file says 9: a longer form of the number."""
    rewrite("pgd", many(100_000))(run)
    path = only(run, "shards/pgd/*.parquet")
    data = path.read_bytes()
    rows, fewer = varint(100_000), varint(9, len(varint(100_000)))
    length = struct.unpack("<I", data[-8:-4])[0]
    footer = data[-8 - length : -8]
    at = footer.index(b"\x16" + rows)  # the first i64 of the footer: num_rows
    changed = footer[: at + 1] + fewer + footer[at + 1 + len(rows) :]
    path.write_bytes(data[: -8 - length] + changed + data[-8:])


def varint(number: int, width: int = 0) -> bytes:
    """A number as Thrift writes it (zigzag), padded to a width."""
    value, out = number << 1, []
    while True:
        out.append(value & 0x7F)
        value >>= 7
        if not value and len(out) >= width:
            break
    return bytes([byte | 0x80 for byte in out[:-1]] + [out[-1]])


def disagreeing(run: Path) -> None:
    """A second shard about two samples of the first, with another margin for one."""
    store = RunStore.open(run)
    store.write_shard("pgd", a_frame(a_row(8), a_row(9, margin=0.25)))

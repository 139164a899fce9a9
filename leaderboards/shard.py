"""A shard as bytes: Parquet, with the identity of the run it belongs to in its metadata."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from leaderboards.columns import (
    MAX_DETAIL,
    PREDICTIONS,
    SHARD_SCHEMA,
    TIMING,
    Layout,
    check_names,
)
from leaderboards.errors import RecordError
from leaderboards.lists import check_sizes, comparable
from leaderboards.sample_ids import Ids, hash_ids

MAX_SHARD_BYTES = 512 << 20
FILE_NAME = re.compile(r"\d{8,19}-\d{8,19}-[0-9a-f]{16}\.parquet")
_SMALL = 1 << 20
_KEY = b"robustbench-c"
_NARROW = b"narrow"
_TEXT = ["verdict", "method", "detail"]


def file_name(ids: Ids) -> str:
    """Return the name of the shard with these samples: two subsets never share one."""
    return f"{ids.min():08d}-{ids.max():08d}-{hash_ids(ids)[:16]}.parquet"


def encode(table: pa.Table, identity: str, step: str, narrow: bool = False) -> bytes:
    """Return rows, ordered by sample, as the bytes of a shard of this run and step.

    Args:
        table: The rows.
        identity: Of the run.
        step: Name of the step.
        narrow: Whether they were made in smaller pieces than usual, for want of memory.
    """
    mark: dict[str, Any] = {"schema": SHARD_SCHEMA, "identity": identity, "step": step}
    if narrow:
        mark["narrow"] = True
    marked = table.sort_by("sample_id").replace_schema_metadata({_KEY: json.dumps(mark)})
    sink = pa.BufferOutputStream()
    pq.write_table(marked, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def decode(
    data: bytes, identity: str, step: str, max_rows: int, layout: Layout = PREDICTIONS
) -> pa.Table:
    """Return the rows of a shard that anybody may have written.

    Columns may come in any order. Text stays dictionary-encoded until its length is known, so
    that a small file cannot unfold into a large table. What `narrow_rows` says is in the schema.

    Raises:
        RecordError: Not Parquet, cut short, of another format, run or step, or with other
            columns, types or more rows than there are samples.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        schema, rows = file.schema_arrow, file.metadata.num_rows
        narrow = _check_mark((schema.metadata or {}).get(_KEY), identity, step)
        check_names(schema.names, layout)
        for want in layout.schema:
            if not schema.field(want.name).equals(want):
                null = "" if want.nullable else ", never null"
                raise RecordError(f"column {want.name} has to be {want.type}{null}")
        if not 0 < rows <= max_rows:
            raise RecordError(f"{rows} rows for a run of {max_rows} samples")
        check_sizes(file.metadata, layout.lengths)
        _check_claims(file.metadata, layout)
        whole = pq.ParquetFile(pa.BufferReader(data), read_dictionary=_TEXT)
        table = whole.read(use_threads=False)
        for name in _TEXT:
            for chunk in table[name].chunks:
                longest = pc.max(pc.utf8_length(chunk.dictionary)).as_py()
                if longest is not None and longest > MAX_DETAIL:
                    raise RecordError(f"{name} of {longest} characters")
        table = table.select(layout.schema.names).cast(layout.schema)
        table.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"not a whole Parquet file ({error}): remove it, and the run's command makes it anew"
        ) from None
    if table.num_rows != rows:
        raise RecordError(f"{table.num_rows} rows, but it claims {rows}")
    return with_narrow_rows(table, rows if narrow else 0)


def narrow_rows(table: pa.Table) -> int:
    """Return how many rows were made in smaller pieces than usual, for want of memory."""
    return int((table.schema.metadata or {}).get(_NARROW, 0))


def with_narrow_rows(table: pa.Table, rows: int) -> pa.Table:
    """Return the table, of which `narrow_rows` says `rows`."""
    return table.replace_schema_metadata({_NARROW: str(min(rows, table.num_rows))})


def without_repetitions(table: pa.Table, step: str) -> pa.Table:
    """Return the table with each sample once.

    A sample may be there twice (two workers took it) if the rows agree in all but the time.

    Raises:
        RecordError: They do not agree.
    """
    ids = table["sample_id"].to_numpy()
    _, first = np.unique(ids, return_index=True)
    if first.size == ids.size:
        return table
    results = comparable(table.drop_columns([TIMING]))
    distinct: Any = results.group_by(results.column_names).aggregate([])
    if distinct.num_rows > first.size:
        unique, counts = np.unique(distinct["sample_id"].to_numpy(), return_counts=True)
        raise RecordError(
            f"step {step} has different results for one sample: {unique[counts > 1][0]}"
        )
    return table.take(first)


def _check_claims(metadata: Any, layout: Layout) -> None:
    """Check, before anything is unpacked, that a small file does not claim to be a large table."""
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise RecordError(f"its parts do not have the {metadata.num_rows} rows that it claims")
    columns = [group.column(c) for group in groups for c in range(group.num_columns)]
    size = sum(column.total_uncompressed_size for column in columns)
    texts = len(_TEXT) * 4 * (MAX_DETAIL + 1)
    numbers = 9 * (len(layout.columns) + sum(layout.lengths.values()))
    if size > _SMALL + metadata.num_rows * (texts + numbers):
        raise RecordError(f"{metadata.num_rows} rows of {size} bytes")


def _check_mark(raw: bytes | None, identity: str, step: str) -> bool:
    """Whose shard it is; returns whether it was made for want of memory in smaller pieces."""
    try:
        mark = json.loads(raw or b"null")
    except (ValueError, RecursionError):
        mark = None
    if not isinstance(mark, dict):
        raise RecordError("not a shard of a run")
    if mark.get("schema") != SHARD_SCHEMA:
        raise RecordError(f"written in another format (this version reads {SHARD_SCHEMA})")
    if mark.get("identity") != identity:
        raise RecordError("a shard of another run")
    if mark.get("step") != step:
        raise RecordError("a shard of another step")
    return mark.get("narrow") is True

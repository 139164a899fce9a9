"""The columns of a shard: one row for each sample that a step was run on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from leaderboards.errors import RecordError
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import LEGAL, StepKind, Verdict

SHARD_SCHEMA = 2
MAX_DETAIL = 1000


@dataclass(frozen=True)
class Column:
    """A column of a shard: its name, Arrow type, whether it may be null, and what it says."""

    name: str
    type: Any
    nullable: bool
    doc: str


COLUMNS = (
    Column("sample_id", pa.int64(), False, "position of the sample in the data set"),
    Column("label", pa.int64(), False, "true class, from 0"),
    Column("verdict", pa.string(), True, "what this step settled; null: still open after it"),
    Column("prediction", pa.int64(), True, "class at the point this row is about"),
    Column("margin", pa.float64(), True, "z_y - max of the others there, float32 evaluation"),
    Column("margin64", pa.float64(), True, "the same, evaluated in float64"),
    Column("distance", pa.float64(), True, "norm of the perturbation, measured in float64"),
    Column("restart", pa.int32(), True, "restart that found the point, from 0"),
    Column("iteration", pa.int32(), True, "iteration that found the point, from 0"),
    Column("bound", pa.float64(), True, "proven lower bound of the margin, rounding taken off"),
    Column("radius", pa.float64(), True, "certified radius, in the threat model's norm and unit"),
    Column("method", pa.string(), True, "certificate that proved it or gave the bound"),
    Column("work", pa.int64(), False, "subproblems this step bounded for the sample"),
    Column("votes", pa.int64(), True, "draws in which a smoothed classifier's base chose label"),
    Column("forwards", pa.int64(), False, "forward passes this step spent on the sample"),
    Column("backwards", pa.int64(), False, "backward passes this step spent on the sample"),
    Column("seconds", pa.float64(), False, "the sample's share of the time; not in any hash"),
    Column("detail", pa.string(), True, "one line on how it came about, such as `rounding`"),
)
SCHEMA = pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in COLUMNS])
TIMING = "seconds"
"""The only column that differs when a run is repeated."""

_PANDAS = {pa.int32(): pd.Int32Dtype(), pa.string(): pd.StringDtype()}


def to_table(frame: pd.DataFrame) -> Any:
    """Return a data frame as an Arrow table of `SCHEMA`; NaN and None become null.

    Raises:
        RecordError: A column is missing, unknown, or not of its type.
    """
    check_names([str(name) for name in frame.columns])
    for column in COLUMNS:  # pyarrow would read numbers out of text
        if column.type != pa.string() and isinstance(frame[column.name].dtype, pd.StringDtype):
            raise RecordError(f"{column.name} is not of its type: text")
    try:
        return pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"a column is not of its type: {error}") from None


def to_frame(table: Any) -> pd.DataFrame:
    """Return a table of `SCHEMA` as a data frame ordered by sample.

    Nullable whole numbers are pandas' masked `Int64` and `Int32`, text is `string`, and a null
    margin, distance or radius is NaN.
    """
    ordered = table.sort_by("sample_id")
    frame: pd.DataFrame = ordered.to_pandas(types_mapper=_PANDAS.get)
    for name in ("prediction", "votes"):
        frame[name] = pd.array(ordered[name].to_pylist(), dtype="Int64")
    return frame


def check_names(names: list[str]) -> None:
    """Raise RecordError unless these are the columns of a shard, in any order."""
    if missing := [n for n in SCHEMA.names if n not in names]:
        raise RecordError(f"missing columns: {', '.join(missing)}")
    if unknown := [n for n in names if n not in SCHEMA.names]:
        raise RecordError(f"unknown columns: {', '.join(unknown)}")
    if len(names) > len(SCHEMA.names):
        raise RecordError("a column is there twice")


def check_rows(table: Any, kind: StepKind, classes: int, sample_ids: Ids) -> None:
    """Check that rows can be what they say they are.

    Args:
        table: Rows in `SCHEMA`.
        kind: `clean`, `attack` or `certificate`: says which verdicts are legal.
        classes: Number of classes; labels and predictions lie below it.
        sample_ids: The run's samples; no others may appear.

    Raises:
        RecordError: A null, negative or non-finite value where there may be none, a verdict that
            a step of this kind cannot give, a sample of another run, or one sample twice.
    """
    for column in COLUMNS:
        values = table[column.name]
        if not column.nullable and values.null_count:
            raise RecordError(f"{column.name} is null")
        if pa.types.is_floating(column.type) and pc.any(pc.invert(pc.is_finite(values))).as_py():
            raise RecordError(f"{column.name} is not finite")
        signed = column.name.startswith("margin") or column.name == "bound"
        if not signed and pa.types.is_primitive(column.type):
            lowest = pc.min(values).as_py()
            if lowest is not None and lowest < 0:
                raise RecordError(f"{column.name} is negative")
    for name in ("label", "prediction"):
        highest = pc.max(table[name]).as_py()
        if highest is not None and highest >= classes:
            raise RecordError(f"{name} {highest}, but there are {classes} classes")
    given = set(pc.unique(table["verdict"]).to_pylist()) - {None}
    if bad := sorted(given - LEGAL[kind]):
        raise RecordError(f"verdict '{bad[0]}' cannot come from a step of kind {kind}")
    if kind != "certificate":
        failed = pc.fill_null(pc.equal(table["verdict"], str(Verdict.ERROR)), False)
        for name in ("prediction", "margin"):
            if pc.any(pc.and_(pc.is_null(table[name]), pc.invert(failed))).as_py():
                raise RecordError(f"{name} is null in a row that is no error")
    ids = table["sample_id"].to_numpy()
    if np.unique(ids).size < ids.size:
        raise RecordError("one sample twice")
    strangers = ids[~np.isin(ids, sample_ids)]
    if strangers.size:
        raise RecordError(f"sample {strangers.min()} is not one of the run's")
    for name in ("method", "detail"):
        length = pc.max(pc.utf8_length(table[name])).as_py()
        if length is not None and length > MAX_DETAIL:
            raise RecordError(f"{name} of {length} characters; the limit is {MAX_DETAIL}")


def content_sha256(table: Any) -> str:
    """Return the hash of a step's results: of every column but the time, ordered by sample.

    Row order, shards, batches and resumes leave it as it is.
    """
    ordered = table.sort_by("sample_id")
    digest = hashlib.sha256(f"shard schema {SHARD_SCHEMA}".encode())
    for column in COLUMNS:
        if column.name == TIMING:
            continue
        values = ordered[column.name].combine_chunks()
        digest.update(f"\n{column.name}:{column.type}:{len(values)}\n".encode())
        if pa.types.is_string(column.type):
            digest.update(json.dumps(values.to_pylist()).encode())
            continue
        digest.update(np.asarray(values.is_valid(), dtype=np.bool_).tobytes())
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
        digest.update(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()

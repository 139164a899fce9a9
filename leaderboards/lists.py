"""Columns that hold a list for each sample: as long as the run's manifest says, or null."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from leaderboards.errors import RecordError


def check_sizes(metadata: Any, lengths: dict[str, int]) -> None:
    """Check, before they are read, that lists do not unfold into more than they may hold.

    Args:
        metadata: Of the Parquet file.
        lengths: Number of entries by column.

    Raises:
        RecordError: More entries than rows times the length.
    """
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            column = group.column(c)
            name = column.path_in_schema.split(".")[0]
            if name in lengths and column.num_values > group.num_rows * max(1, lengths[name]):
                raise RecordError(f"{name} claims {column.num_values} entries")


def check_lists(name: str, values: Any, length: int, legal: tuple[int | None, ...] | None) -> None:
    """Check the lists of one column.

    Args:
        name: Of the column.
        values: An Arrow array of lists.
        length: Number of entries that each has.
        legal: Values of entries; None for floats, which are finite, not negative, or null.

    Raises:
        RecordError: A list of another length, or an entry that cannot be.
    """
    lengths = pc.unique(pc.drop_null(pc.list_value_length(values))).to_pylist()
    if wrong := [n for n in lengths if n != length]:
        raise RecordError(f"{name} has {wrong[0]} entries where there have to be {length}")
    flat = values.flatten()
    if legal is None:
        if pc.any(pc.invert(pc.is_finite(flat))).as_py():
            raise RecordError(f"{name} is not finite")
        if pc.any(pc.less(flat, 0.0)).as_py():
            raise RecordError(f"{name} is negative")
    elif strange := sorted(set(pc.unique(flat).to_pylist()) - set(legal), key=str):
        raise RecordError(f"{name} has the entry {strange[0]}")


def check_order(names: tuple[str, str], lower: Any, upper: Any) -> None:
    """Raise RecordError unless two columns of lists of one length are there together, in order."""
    if not lower.is_valid().equals(upper.is_valid()):
        raise RecordError(f"{names[0]} and {names[1]} go together")
    if pc.any(pc.greater(lower.flatten(), upper.flatten())).as_py():
        raise RecordError(f"{names[0]} is above {names[1]}")


def list_bytes(values: Any) -> bytes:
    """The lists of a column as bytes of which equal ones have the same: for a hash."""
    lengths = pc.fill_null(pc.list_value_length(values), -1).to_numpy(zero_copy_only=False)
    flat = values.flatten()
    valid = np.asarray(flat.is_valid(), dtype=np.bool_)
    numbers = flat.fill_null(0).to_numpy(zero_copy_only=False)
    parts = (lengths.astype("<i8"), valid, numbers.astype(numbers.dtype.newbyteorder("<")))
    return b"".join(part.tobytes() for part in parts)


def comparable(table: Any) -> Any:
    """The table with lists as text, so that rows can be grouped by all of their columns."""
    for i, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            text = [None if v is None else repr(v) for v in table[field.name].to_pylist()]
            table = table.set_column(i, field.name, pa.array(text, pa.string()))
    return table


def largest(lists: pd.Series[Any]) -> pd.Series[float]:
    """The largest entry of each list; NaN where it is null or has an entry that is."""
    found = [np.nan if v is None else np.max(np.asarray(v, dtype=np.float64)) for v in lists]
    return pd.Series(found, index=lists.index, dtype=np.float64)

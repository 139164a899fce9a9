"""Sets of sample ids (positions in the data set) as short text, and their hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from leaderboards.errors import RecordError

Ids = npt.NDArray[np.int64]

MAX_SAMPLES = 10_000_000
_RANGES = re.compile(r"\d{1,15}(-\d{1,15})?(,\d{1,15}(-\d{1,15})?)*", re.ASCII)


def format_ids(ids: Iterable[int] | Ids) -> str:
    """Return a set of ids as ascending ranges, ends included: `"0-999,1004"`.

    Args:
        ids: Non-negative and without repetition, in any order.

    Raises:
        RecordError: None at all, a negative one, one twice, or too many.
    """
    array = np.sort(np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=np.int64))
    if not 0 < array.size <= MAX_SAMPLES:
        raise RecordError(f"{array.size} sample ids: a run needs 1 to {MAX_SAMPLES}")
    if array[0] < 0 or (np.diff(array) == 0).any():
        raise RecordError("sample ids have to be non-negative and without repetition")
    starts = np.flatnonzero(np.diff(array, prepend=array[0] - 2) != 1)
    first, last = array[starts], array[np.append(starts[1:], array.size) - 1]
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(first, last, strict=True))


def parse_ids(text: str) -> Ids:
    """Return the ids, ascending, that `format_ids` wrote.

    Raises:
        RecordError: Not ascending ranges, or more than `MAX_SAMPLES` ids (checked before any
            memory is taken: a record may come from a stranger).
    """
    if not _RANGES.fullmatch(text):
        raise RecordError(f"sample ids are not ranges like 0-999,1004: '{text[:40]}'")
    pieces = [piece.split("-") for piece in text.split(",")]
    ranges = [(int(piece[0]), int(piece[-1])) for piece in pieces]
    end = -1
    for first, last in ranges:
        if first <= end or last < first:
            raise RecordError(f"sample ids are not ascending at {first}-{last}")
        end = last
    count = sum(last - first + 1 for first, last in ranges)
    if count > MAX_SAMPLES:
        raise RecordError(f"{count} sample ids: a run has at most {MAX_SAMPLES}")
    return np.concatenate([np.arange(a, b + 1, dtype=np.int64) for a, b in ranges])


def hash_ids(ids: Ids) -> str:
    """Return the SHA-256 of a set of ids: of its sorted little-endian int64 bytes."""
    return hashlib.sha256(np.sort(ids).astype("<i8").tobytes()).hexdigest()

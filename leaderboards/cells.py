"""A step's rows as plain arrays, for what looks at whole columns of many runs."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from leaderboards.sample_ids import Ids
from leaderboards.verdicts import Reason, Verdict, reason_of

NONE = -1
"""The code of a verdict or reason that is not there."""
CODES: dict[StrEnum, int] = {
    word: code for words in (Verdict, Reason) for code, word in enumerate(words)
}
"""Place of each verdict among the verdicts, and of each reason among the reasons."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]


class Cells:
    """The rows of a step; arrays have the order of the rows, and are not to be changed.

    Args:
        frame: Columns of a shard, each sample once.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._numbers: dict[str, Floats] = {}

    @cached_property
    def ids(self) -> Ids:
        """The samples."""
        return self.frame["sample_id"].to_numpy(np.int64)

    @cached_property
    def verdict(self) -> Codes:
        """Verdicts by `CODES`, `NONE` where the row is open."""
        return codes_of(self.frame["verdict"], list(Verdict))

    @cached_property
    def reason(self) -> Codes:
        """Reasons that the details give, `NONE` where they give none."""
        words = _text(self.frame["detail"]).dictionary_encode()
        said = [reason_of(detail) for detail in words.dictionary.to_pylist()]
        known = np.array([*(NONE if r is None else CODES[r] for r in said), NONE], dtype=np.int8)
        found: Codes = known[np.asarray(words.indices.fill_null(NONE))]
        return found

    @cached_property
    def misses(self) -> Bools:
        """Where a class is predicted that is not the label."""
        predicted = self.number("prediction")
        return np.asarray((predicted != self.number("label")) & ~np.isnan(predicted))

    def says(self, verdict: Verdict) -> Bools:
        """Where the row says so."""
        return np.asarray(self.verdict == CODES[verdict])

    def number(self, name: str) -> Floats:
        """A column of numbers, NaN where it is null."""
        if name not in self._numbers:
            self._numbers[name] = self.frame[name].to_numpy(np.float64, na_value=np.nan)
        return self._numbers[name]

    def total(self, name: str) -> int:
        """The sum of a column of whole numbers."""
        return int(self.frame[name].to_numpy().sum())


def codes_of(words: pd.Series[str], known: list[Any]) -> Codes:
    """Return text as its place in a list; `NONE` where it is null."""
    values = pa.array([str(word) for word in known], pa.string())
    found = pc.index_in(_text(words), values)
    return np.asarray(found.fill_null(NONE), dtype=np.int8)


def strings(codes: npt.NDArray[Any], known: list[Any]) -> Any:
    """Return what `codes_of` made codes of, as pandas' text; null for `NONE`."""
    words = pa.array([str(word) for word in known], pa.string())
    places = pa.array(codes, pa.int64(), mask=codes == NONE)
    return pd.array(words.take(places), dtype="string")


def _text(words: pd.Series[str]) -> Any:
    found = pa.array(words, pa.string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found

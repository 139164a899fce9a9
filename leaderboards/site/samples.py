"""What a run says of each sample: one row, as the explorer of its page reads it.

Worked out on arrays: a site has as many of these tables as runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from leaderboards.entries import Entry
from leaderboards.errors import one_line
from leaderboards.explained import explained_values
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.verdicts import CLEAN_STEP, Verdict, reason_of

MOST = 100_000
"""Samples that the explorer holds: the first by their ids; the record has all."""
COLUMNS = {
    "sample_id": ("Sample", ""),
    "label": ("Label", ""),
    "prediction": ("Prediction", ""),
    "verdict": ("Verdict", ""),
    "settled_by": ("Settled by", ""),
    "method": ("Proved by", ""),
    "seen_as": ("Attacked: seen as", ""),
    "reason": ("Open because", ""),
    "margin": ("Margin", "Logit of the label less the largest other, on the clean sample."),
    "bound": ("Bound", "Proven lower bound of the margin over all that the attacker may do."),
    "radius": ("Certified radius", "Proven: no adversarial example is nearer."),
    "distance": ("Distance of the example", "Of the adversarial example that was found."),
    "nearest": ("Nearest example", "Distance of the nearest adversarial example found."),
    "attack": ("Bent by", "Largest distance of explanations found, by the criterion."),
    "certificate": ("At most", "Proven upper bound of that distance."),
    "passes": ("Passes", "Forward and backward passes spent on the sample, all steps."),
    "work": ("Subproblems", "Subproblems bounded, all steps."),
    "seconds": ("Seconds", "Its share of the time, all steps."),
}
"""Title of each column and, where that does not say it, its meaning; in their order."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SampleColumn:
    """A column of the table.

    Attributes:
        values: (n,) numbers, NaN where nothing is known; or places in `words`, -1 likewise.
        words: None for numbers.
    """

    values: npt.NDArray[Any]
    words: list[str] | None = None

    @property
    def says_something(self) -> bool:
        """Whether a sample has a value."""
        known = ~np.isnan(self.values) if self.words is None else self.values >= 0
        return bool(known.any())

    def word(self, place: int) -> str | None:
        """Return the word of a row; None where it has none."""
        at = int(self.values[place])
        return None if self.words is None or at < 0 else self.words[at]


def sample_columns(entry: Entry, store: RunStore) -> dict[str, SampleColumn]:
    """Return the columns in which a sample has a value, in the order of `COLUMNS`.

    Args:
        entry: The run.
        store: Its record.
    """
    rows = _Rows(entry, store)
    if entry.manifest.protocol.explanation is not None:
        rows.add_explanations(store)
    return {key: rows.columns[key] for key in COLUMNS if key in rows.columns}


class _Rows:
    """The steps' rows, put together sample by sample."""

    def __init__(self, entry: Entry, store: RunStore) -> None:
        self._entry = entry
        self._ids: Ids = entry.settled.index.to_numpy(np.int64)
        n, verdict = self._ids.size, _words(entry.settled["verdict"])
        self._settled_by = _words(entry.settled["settled_by"])
        self._open = verdict == str(Verdict.UNDECIDED)
        self._classes = entry.manifest.data.classes
        self._words: dict[str, npt.NDArray[np.object_]] = {
            name: np.full(n, None, dtype=object) for name in ("method", "reason")
        }
        self._sums = {name: np.zeros(n) for name in ("passes", "work", "seconds")}
        self._best = {name: np.full(n, np.nan) for name in ("bound", "radius", "distance")}
        self._seen_as = np.full(n, -1, dtype=np.int64)
        self.columns: dict[str, SampleColumn] = {}
        for step in store.steps:
            self._add(step, store.read_table(step))
        words = self._words | {"verdict": verdict, "settled_by": self._settled_by}
        found = {name: _coded(values) for name, values in words.items()}
        found |= {k: SampleColumn(v) for k, v in (self._best | self._sums).items()}
        if entry.manifest.protocol.explanation is None:
            found["seen_as"] = _named(self._seen_as, self._classes)
            if any(step.minimal for step in entry.manifest.protocol.steps):
                found["nearest"] = found.pop("distance")
        else:
            del found["distance"]  # of the point: no distance of explanations
        if not self._sums["work"].any():
            del found["work"]
        self.columns |= {k: column for k, column in found.items() if column.says_something}

    def _add(self, step: str, table: pa.Table) -> None:
        ids = table["sample_id"].to_numpy()
        places = np.searchsorted(self._ids, ids)
        own = self._settled_by[places] == step
        if step == CLEAN_STEP:
            self._add_clean(places, table)
        for name in ("bound", "radius"):
            self._best[name][places] = np.fmax(self._best[name][places], _numbers(table, name))
        nearest = self._best["distance"]
        nearest[places] = np.fmin(nearest[places], _numbers(table, "distance"))
        passes = _numbers(table, "forwards") + _numbers(table, "backwards")
        for name, values in (
            ("passes", passes),
            ("work", _numbers(table, "work")),
            ("seconds", _numbers(table, "seconds")),
        ):
            self._sums[name][places] += values
        if own.any():
            verdicts = _texts(table, "verdict")
            proved = own & (verdicts == str(Verdict.CERTIFIED))
            self._words["method"][places[proved]] = _texts(table, "method")[proved]
            broken = own & (verdicts == str(Verdict.BROKEN))
            seen = np.nan_to_num(_numbers(table, "prediction"), nan=-1).astype(np.int64)
            self._seen_as[places[broken]] = seen[broken]
        if (left := self._open[places]).any():
            details = _texts(table, "detail")[left]
            reasons = {detail: reason_of(detail) for detail in set(details.tolist())}
            for place, detail in zip(places[left].tolist(), details, strict=True):
                if (reason := reasons[detail]) is not None:
                    self._words["reason"][place] = str(reason)

    def _add_clean(self, places: npt.NDArray[np.int64], table: pa.Table) -> None:
        n = self._ids.size
        for name in ("label", "prediction"):
            codes = np.full(n, -1, dtype=np.int64)
            codes[places] = np.nan_to_num(_numbers(table, name), nan=-1)
            self.columns[name] = _named(codes, self._classes)
        margin = np.full(n, np.nan)
        margin[places] = _numbers(table, "margin")
        self.columns["margin"] = SampleColumn(margin)

    def add_explanations(self, store: RunStore) -> None:
        """Add how far explanations were bent, and can be at most."""
        found = explained_values(store.read_steps(), self._entry.settled.index)
        for name in ("attack", "certificate"):
            column = SampleColumn(found[name].to_numpy(np.float64, na_value=np.nan))
            if column.says_something:
                self.columns[name] = column


def samples_js(
    ids: Sequence[int], columns: dict[str, SampleColumn], pictured: dict[int, str]
) -> bytes:
    """Return the file that the explorer reads.

    Args:
        ids: Sample ids, ascending.
        columns: Of `sample_columns`.
        pictured: By sample id, the place on the page where its pictures are.
    """
    told: list[dict[str, Any]] = [_told("sample_id") | {"values": list(ids[:MOST])}]
    for name, column in columns.items():
        values = column.values[:MOST]
        if column.words is None:
            told.append(_told(name) | {"values": _rounded(values)})
        else:
            words = [one_line(word, 100) for word in column.words]
            told.append(_told(name) | {"words": words, "values": values.tolist()})
    held = {"columns": told, "pictures": {str(k): v for k, v in pictured.items()}}
    text = json.dumps(held, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return b'"use strict";\nconst robustSamples = ' + text.encode("ascii") + b";\n"


def _told(name: str) -> dict[str, str]:
    title, about = COLUMNS[name]
    return {"key": name, "title": title} | ({"about": about} if about else {})


def _named(labels: npt.NDArray[np.int64], classes: Sequence[str]) -> SampleColumn:
    """Labels, -1 for none, with the names of those that are there."""
    used = np.unique(labels[labels >= 0])
    places = np.where(labels >= 0, np.searchsorted(used, labels), -1)
    return SampleColumn(places, [one_line(classes[label], 60) for label in used.tolist()])


def _coded(values: npt.NDArray[np.object_]) -> SampleColumn:
    codes, words = pd.factorize(values, sort=True)
    return SampleColumn(codes, [str(word) for word in words])


def _words(values: pd.Series[str]) -> npt.NDArray[np.object_]:
    """Words as they are, None where there is none."""
    return values.astype(object).where(values.notna(), None).to_numpy(dtype=object)


def _numbers(table: pa.Table, name: str) -> Floats:
    values: Floats = table[name].to_numpy().astype(np.float64)
    return values


def _texts(table: pa.Table, name: str) -> npt.NDArray[np.object_]:
    return np.array(table[name].to_pylist(), dtype=object)


def _rounded(values: Floats) -> list[float | int | None]:
    """Five digits that count: enough to sort and to read by."""
    return [
        None if x != x else int(x) if x.is_integer() else float(f"{x:.5g}") for x in values.tolist()
    ]

"""Groups of samples that are looked at on their own: classes, margins, and those of the user."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaderboards.entries import Entry
from leaderboards.errors import RecordError, one_line
from leaderboards.files import read_bytes
from leaderboards.manifest import Protocol
from leaderboards.rates import Rate
from leaderboards.report.blocks import Table
from leaderboards.report.words import interval, share

MAX_SLICES = 200
_MAX_BYTES = 256 << 20
_COLUMNS = ["sample_id", "slice"]


def rate_titles(protocol: Protocol) -> dict[str, str]:
    """What rates are called, by their name in `Entry.right`."""
    if protocol.explanation is not None:
        return {"clean": "clean", "robust": "not bent", "certified": "certified stable"}
    changed = protocol.corruption is not None or protocol.transformation is not None
    robust = "right under all" if changed else "empirical robust"
    return {"clean": "clean", "robust": robust, "certified": "certified"}


def group_table(entry: Entry, groups: pd.Series[Any], order: Sequence[str], what: str) -> Table:
    """Return the rates of groups of samples, each with its exact interval.

    Args:
        entry: The run.
        groups: Name of each sample's group, by sample id; null where it has none.
        order: Names of the groups, as the table has them; those without samples are left out.
        what: What a group is.
    """
    titles = {k: v for k, v in rate_titles(entry.manifest.protocol).items() if k in entry.right}
    own = groups.reindex(entry.settled.index)
    rows = []
    for name in order:
        inside = (own == name).fillna(False).to_numpy(dtype=np.bool_)
        n = int(inside.sum())
        if not n:
            continue
        cells = [one_line(name, 60), f"{n:,}"]
        for rate in titles:
            found = Rate.of(int((entry.right[rate] & inside).sum()), n)
            cells += [share(found), interval(found)]
        rows.append(tuple(cells))
    header = [what, "samples"]
    for title in titles.values():
        header += [title, "95% interval"]
    return Table(tuple(header), tuple(rows))


def by_class(entry: Entry, clean: pd.DataFrame) -> Table:
    """Return the rates by true class."""
    names = [one_line(name, 60) for name in entry.manifest.data.classes]
    told = [f"{i}: {name}" if name != str(i) else name for i, name in enumerate(names)]
    labels = clean.set_index("sample_id")["label"].map(lambda label: told[label])
    return group_table(entry, labels, told, "class")


def by_margin(entry: Entry, clean: pd.DataFrame) -> Table | None:
    """Return the rates by quarters of the clean margin, of the samples that are right.

    None where there are fewer than four.
    """
    margins = clean.set_index("sample_id")["margin"].astype(np.float64)
    margins = margins[margins > 0]
    if len(margins) < 4:
        return None
    ends = [float(margins.quantile(q, "lower")) for q in (0.25, 0.5, 0.75)]
    names = [
        f"lowest quarter: up to {ends[0]:.4g}",
        f"second: up to {ends[1]:.4g}",
        f"third: up to {ends[2]:.4g}",
        f"highest quarter: above {ends[2]:.4g}",
    ]
    place = np.searchsorted(ends, margins.to_numpy(), "left")
    groups = pd.Series([names[i] for i in place], index=margins.index)
    return group_table(entry, groups, names, "clean margin")


def read_slices(path: Path) -> pd.Series[str]:
    """Read a CSV of the columns `sample_id` and `slice`: one line for each sample.

    Raises:
        RecordError: Not such a file; says which line.
    """
    try:
        text = read_bytes(path.parent, path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 at byte {error.start}") from None
    found: dict[int, str] = {}
    try:
        lines = csv.reader(io.StringIO(text), strict=True)
        if next(lines, None) != _COLUMNS:
            raise RecordError(f"{path}: the first line has to be {','.join(_COLUMNS)}")
        for cells in lines:
            where = f"{path}, line {lines.line_num}"
            if len(cells) != 2:
                raise RecordError(f"{where}: {len(cells)} cells where there have to be 2")
            number, name = cells[0].strip(), one_line(cells[1], 60)
            if not (number.isascii() and number.isdigit() and len(number) <= 15):
                raise RecordError(f"{where}: '{number[:20]}' is not a sample id")
            if not name:
                raise RecordError(f"{where}: a slice without a name")
            if int(number) in found:
                raise RecordError(f"{where}: sample {number} is there twice")
            found[int(number)] = name
    except csv.Error as error:
        raise RecordError(f"{path}, line {lines.line_num}: {error}") from None
    if len(set(found.values())) > MAX_SLICES:
        raise RecordError(f"{path}: {len(set(found.values()))} slices; the limit is {MAX_SLICES}")
    return pd.Series(found, dtype=object)


def check_slices(slices: pd.Series[str], entry: Entry, path: Path) -> None:
    """Raise RecordError if a slice is about a sample that is none of the run's."""
    strangers = np.setdiff1d(slices.index.to_numpy(np.int64), entry.settled.index.to_numpy())
    if strangers.size:
        raise RecordError(
            f"{path}: sample {strangers[0]} is not one of {entry.folder} "
            f"({strangers.size} of {len(slices)} are not)"
        )
    if slices.empty:
        raise RecordError(f"{path}: no sample in it")

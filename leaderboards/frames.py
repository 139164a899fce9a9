"""Runs as data frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas as pd

from leaderboards.board_columns import COLUMNS, Kind
from leaderboards.boards import boards_of
from leaderboards.entries import Entry, find_runs, read_entries
from leaderboards.errors import RecordError

Places = str | PathLike[str] | Sequence[str | PathLike[str]]

_DTYPES: dict[Kind, str] = {
    "text": "string",
    "rate": "Float64",
    "number": "Float64",
    "count": "Int64",
    "flag": "boolean",
    "date": "datetime64[us, UTC]",
}


def load(runs: Places, jobs: int = 1) -> pd.DataFrame:
    """Read runs, check them, and return one row for each.

        import leaderboards
        frame = leaderboards.load("runs")
        frame[frame.subject == "prediction"].groupby("board").certified.max()

    Args:
        runs: A folder of runs, a run, or several of these.
        jobs: Processes to read with; of more than one, call it from a script that has the usual
            `if __name__ == "__main__"`.

    Returns:
        `board` (its short name), `board_title` and the columns of `leaderboards.board_columns`,
        board by board, the best first. Ranks are within a board. What is not known is null.

    Warns:
        UserWarning: Of each run that cannot be trusted; it is left out.

    Raises:
        RecordError: There is no run that can be trusted.
    """
    boards = boards_of(_entries(runs, jobs))
    placed = [(board, row) for board in boards for row in board.rows]
    columns: dict[str, pd.Series] = {
        "board": pd.Series([board.slug for board, _ in placed], dtype="string"),
        "board_title": pd.Series([board.title for board, _ in placed], dtype="string"),
    }
    for column in COLUMNS:
        values = [column.value(row) for _, row in placed]
        columns[column.key] = pd.Series(values, dtype=_DTYPES[column.kind])
    return pd.DataFrame(columns)


def load_samples(runs: Places, jobs: int = 1) -> pd.DataFrame:
    """Read runs, check them, and return one row for each sample of each.

        samples = leaderboards.load_samples("runs")
        samples.groupby(["model", "settled_by"]).size()

    Args:
        runs: As of `load`.
        jobs: As of `load`.

    Returns:
        `board`, `run_id`, `model`, `model_sha256`, `sample_id`, `verdict`, `settled_by` (the step)
        and `clean`, `robust`, `certified`: whether the sample counts for that rate, null where the
        run does not speak of it. In the order of `load`, samples ascending.

    Warns:
        UserWarning: As of `load`.

    Raises:
        RecordError: As of `load`.
    """
    boards = boards_of(_entries(runs, jobs))
    rows = [(board.slug, entry) for board in boards for entry in board.entries]
    return pd.concat([_samples(slug, entry) for slug, entry in rows], ignore_index=True)


def _samples(slug: str, entry: Entry) -> pd.DataFrame:
    manifest, settled = entry.manifest, entry.settled.reset_index()
    n = len(settled)
    names = {
        "board": slug,
        "run_id": manifest.run_id,
        "model": manifest.model.name,
        "model_sha256": manifest.model.sha256,
    }
    told = {key: pd.Series([value] * n, dtype="string") for key, value in names.items()}
    right = {
        rate: pd.Series(entry.right.get(rate, [None] * n), dtype="boolean")
        for rate in ("clean", "robust", "certified")
    }
    return pd.DataFrame({**told, **settled, **right})


def _entries(runs: Places, jobs: int) -> list[Entry]:
    places = [runs] if isinstance(runs, str | PathLike) else runs
    entries, refused = read_entries(find_runs([Path(place) for place in places]), jobs)
    for each in refused:
        warnings.warn(f"{each.folder} is left out: {each.problem}", stacklevel=3)
    if not entries:
        raise RecordError(f"none of {len(refused)} runs can be trusted")
    return entries

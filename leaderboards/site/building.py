"""From the folders of runs to a site that needs no server and no network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from leaderboards.boards import Board, boards_of
from leaderboards.entries import Entry, Refused, read_entries
from leaderboards.export import export
from leaderboards.site.folder import check_place, new_site, put
from leaderboards.site.index import EXPORTS, Curves, Pages, index_page
from leaderboards.site.page import Placing, write_page
from leaderboards.site.samples import sample_columns

_CHUNK = 8


@dataclass(frozen=True)
class BuildResult:
    """What was built.

    Attributes:
        out: The folder.
        boards: The boards on it.
        runs: Number of runs on them.
        refused: Folders that are no records to be trusted.
    """

    out: Path
    boards: tuple[Board, ...]
    runs: int
    refused: tuple[Refused, ...]

    @property
    def index(self) -> Path:
        """The main page."""
        return self.out / "index.html"


def build(folders: Sequence[Path], out: Path, *, jobs: int = 1, title: str) -> BuildResult:
    """Build a site of runs; the same records give the same bytes, wherever and in what order.

    Args:
        folders: Of the runs.
        out: Where to: made anew, or an older site, which is replaced when all is done.
        jobs: Processes.
        title: Of the site.

    Raises:
        RecordError: `out` is something else than a site, or cannot be written, or a run changed
            while it was read.
    """
    check_place(out)
    entries, refused = read_entries(folders, jobs, keep=sample_columns)
    return build_of(entries, refused, out, jobs=jobs, title=title)


def build_of(
    entries: Sequence[Entry],
    refused: Sequence[Refused],
    out: Path,
    *,
    jobs: int = 1,
    title: str,
) -> BuildResult:
    """Build a site of runs that were read, fastest with `keep=sample_columns`: `build`."""
    boards = boards_of(entries)
    pages = page_names([entry for board in boards for entry in board.entries])
    with new_site(out) as folder:
        write_assets(folder / "assets")
        _write_exports(folder / "exports", boards)
        curves = _write_pages(folder / "runs", boards, pages, jobs)
        put(folder / "index.html", index_page(boards, refused, pages, curves, title))
    return BuildResult(out, boards, len(pages), tuple(refused))


def page_names(entries: Sequence[Entry]) -> Pages:
    """Return the folder of each run's page: its id, with a number where two runs share one.

    Args:
        entries: In an order that follows from the records.
    """
    names, taken = Pages(), {entry.manifest.run_id for entry in entries}
    first = set[str]()
    for entry in entries:
        name, number = entry.manifest.run_id, 2
        if name in first:
            while (name := f"{entry.manifest.run_id}-{number}") in taken:
                number += 1
        first.add(name)
        taken.add(name)
        names[id(entry)] = name
    return names


def write_assets(folder: Path) -> None:
    """Write style and scripts of the pages."""
    for file in sorted(resources.files("leaderboards.site").joinpath("assets").iterdir(), key=str):
        put(folder / file.name, file.read_bytes())


def _write_exports(folder: Path, boards: Sequence[Board]) -> None:
    for board in boards:
        for _, form, end in EXPORTS:
            put(folder / f"{board.slug}.{end}", export([board], form).encode())


def _write_pages(runs: Path, boards: Sequence[Board], pages: Pages, jobs: int) -> Curves:
    """Write the pages of all runs, and return the curves of those that have one."""
    entries = [entry for board in boards for entry in board.entries]
    placings = [placing for board in boards for placing in _placings(board, pages)]
    workers = min(jobs, -(-len(entries) // _CHUNK))
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else None
    with pool or nullcontext():
        work = (write_page, entries, placings, repeat(runs))
        made = pool.map(*work, chunksize=_CHUNK) if pool else map(*work)
        found = zip(entries, made, strict=True)
        return {id(entry): curve for entry, curve in found if curve is not None}


def _placings(board: Board, pages: Pages) -> list[Placing]:
    return [
        Placing(
            pages[id(row.entry)],
            board.title,
            board.slug,
            {rate: (*found, board.ranked[rate]) for rate, found in row.ranks.items()},
            row.not_ranked,
        )
        for row in board.rows
    ]

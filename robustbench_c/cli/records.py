"""Runs that commands about many of them read: each checked, those refused said on stderr."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from leaderboards.entries import Entry, Keep, Refused

Runs = Annotated[list[Path], typer.Argument(help="Runs, or folders of runs.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, max=1024, help="Processes; as many as there are cores if not given."
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail (exit code 6) if a run cannot be trusted.")
]
_FEW = 16
"""Runs that are read before another process has started."""


def read_records(runs: list[Path], jobs: int | None, strict: bool) -> list[Entry]:
    """Return the runs that can be trusted: `read_all`."""
    return read_all(runs, jobs, strict)[0]


def read_all(
    runs: list[Path], jobs: int | None, strict: bool, keep: Keep | None = None
) -> tuple[list[Entry], list[Refused]]:
    """Read runs; name those that cannot be trusted on stderr.

    Args:
        runs: Runs, or folders of runs.
        jobs: Processes to read with; None for as many as this process may use cores.
        strict: Whether one that cannot be trusted is an error.
        keep: As of `leaderboards.entries.read_entry`.

    Raises:
        RecordError: No runs there; none that can be trusted, or one that cannot and `strict`.
    """
    from leaderboards.entries import find_runs, read_entries
    from leaderboards.errors import RecordError, one_line

    folders = find_runs(runs)
    entries, refused = read_entries(folders, processes(jobs, len(folders)), keep)
    for each in refused:
        print(one_line(f"refused: {each.folder}: {each.problem}"), file=sys.stderr)
    if refused and (strict or not entries):
        raise RecordError(f"{len(refused)} of {len(folders)} runs cannot be trusted")
    return entries, refused


def processes(jobs: int | None, runs: int) -> int:
    """Return how many processes to work with: as asked, else the cores this process may use."""
    if jobs is not None or runs <= _FEW:
        return jobs or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

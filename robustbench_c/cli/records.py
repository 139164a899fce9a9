"""Runs that commands about many of them read: each checked, those refused said on stderr."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from leaderboards.entries import Entry

Runs = Annotated[list[Path], typer.Argument(help="Runs, or folders of runs.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes to read with; the cores without.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail (exit code 6) if a run cannot be trusted.")
]
_FEW = 16
"""Runs that are read before another process has started."""


def read_records(runs: list[Path], jobs: int | None, strict: bool) -> list[Entry]:
    """Read runs; name those that cannot be trusted on stderr.

    Args:
        runs: Runs, or folders of runs.
        jobs: Processes to read with; None for as many as this process may use cores.
        strict: Whether one that cannot be trusted is an error.

    Raises:
        RecordError: No runs there; none that can be trusted, or one that cannot and `strict`.
    """
    from leaderboards.entries import find_runs, read_entries
    from leaderboards.errors import RecordError, one_line

    folders = find_runs(runs)
    cores = 1 if len(folders) <= _FEW else _cores()
    entries, refused = read_entries(folders, jobs or cores)
    for each in refused:
        print(one_line(f"refused: {each.folder}: {each.problem}"), file=sys.stderr)
    if refused and (strict or not entries):
        raise RecordError(f"{len(refused)} of {len(folders)} runs cannot be trusted")
    return entries


def _cores() -> int:
    """The cores this process may use, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

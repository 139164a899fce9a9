"""The runs in a folder, at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leaderboards.errors import RecordError
from leaderboards.files import list_folder
from leaderboards.manifest import Manifest
from leaderboards.store import RunStore, is_run
from leaderboards.summary import Summary, summarise


@dataclass(frozen=True)
class Listed:
    """A run found in a folder.

    Attributes:
        folder: Where it lies.
        manifest: What it is; None if that cannot be read.
        summary: What it found so far, from its shards; None if they cannot be trusted.
        problem: One line that says why something is None.
    """

    folder: Path
    manifest: Manifest | None = None
    summary: Summary | None = None
    problem: str | None = None


def list_runs(folder: Path) -> list[Listed]:
    """Return the runs right under a folder, oldest first, unreadable ones last.

    A damaged run is listed with its problem: it hides no other.

    Raises:
        RecordError: The folder is not there or cannot be read.
    """
    if not folder.is_dir():
        raise RecordError(f"no such folder: {folder}")
    looked = [_look(path) for path in list_folder(folder, folder) if path.is_dir()]
    found = [run for run in looked if run is not None]
    return sorted(
        found, key=lambda run: (run.manifest is None, run.manifest and run.manifest.created)
    )


def _look(path: Path) -> Listed | None:
    try:
        if not is_run(path):
            return None
        store = RunStore.open(path)
    except RecordError as error:
        return Listed(path, problem=str(error))
    try:
        return Listed(path, store.manifest, summarise(store))
    except RecordError as error:
        return Listed(path, store.manifest, problem=str(error))

"""Whole files or none, for what is no record."""

from __future__ import annotations

from pathlib import Path

from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes, make_folder
from robustbench_c.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, and its folder, so that a crash leaves the old one or the new one.

    Raises:
        RunError: It cannot be written (folder not writable, disk full).
    """
    try:
        if not path.parent.is_dir():
            make_folder(path.parent)
        atomic_write_bytes(path, content)
    except RecordError as error:
        raise RunError(f"{error}; give a folder that is writable and has space") from error

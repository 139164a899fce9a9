"""Whole files or none."""

from __future__ import annotations

import os
from pathlib import Path

from robustbench_c.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Raises:
        RunError: The file cannot be written (folder not writable, disk full).
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if part.is_file():
            part.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.strerror}; give a folder that is writable and has space"
        ) from error

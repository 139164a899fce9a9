"""Removing the record of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

from robustbench_c.errors import RunError


def remove_run(folder: Path) -> None:
    """Remove a run: at once to all who look, whatever stops the rest.

    Raises:
        RunError: It cannot be removed.
    """
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise RunError(f"cannot remove {folder}: {error.strerror or error}") from error

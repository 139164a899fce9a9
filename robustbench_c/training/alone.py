"""One training at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leaderboards.errors import RecordError
from leaderboards.files import make_folder, remove_temporaries
from robustbench_c.errors import RunError
from robustbench_c.leases import Leases


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep every other training out of a folder while the block runs.

    What a training that was killed has left half-written is removed.

    Args:
        folder: Made where missing.

    Raises:
        RunError: Another process trains there, or the folder cannot be written.
    """
    leases, there = Leases(folder), folder.exists()
    try:
        make_folder(folder)
        with leases.claim("training", "folder") as mine:
            if not mine:
                raise RunError(
                    f"another process trains in {folder}: wait until it has ended, or give "
                    "another --out"
                )
            remove_temporaries(folder, folder)
            yield
    except RecordError as error:
        raise RunError(f"{error}; give a folder that is writable and has space") from error
    finally:
        leases.clear()
        if not there:  # and nothing came of it
            with suppress(OSError):
                folder.rmdir()

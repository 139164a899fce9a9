"""One training at a time in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leaderboards.errors import RecordError
from leaderboards.files import make_folder, remove_temporaries
from leaderboards.holders import AGE
from robustbench_c.errors import RunError
from robustbench_c.leases import Leases

_LEASE = ("training", "folder")


@contextmanager
def alone_in(folder: Path, note: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Keep every other training out of a folder while the block runs.

    What a training that was killed has left half-written is removed. Where nobody knows whether
    the last one lives (it was on another machine, or has been stopped), this one waits until it
    does.

    Args:
        folder: Made where missing.
        note: Told that it waits.

    Yields:
        To be called before each writing: raises RunError where this process was stopped for so
        long that another has taken over.

    Raises:
        RunError: Another process trains there, or the folder cannot be written.
    """
    leases, there = Leases(folder, AGE), folder.exists()

    def check() -> None:
        if not leases.holds(*_LEASE):
            raise RunError(
                f"this process no longer holds {folder}: it was silent for so long that another "
                "may train there now; nothing more is written"
            )

    try:
        make_folder(folder)
        leases.outlast(
            *_LEASE,
            lambda: note(
                f"{folder} is in use by a training that may be lost: waiting up to "
                f"{AGE:g} s for a sign of it"
            ),
        )
        with leases.claim(*_LEASE) as mine:
            if not mine:
                raise RunError(
                    f"another process trains in {folder}: wait until it has ended, or give "
                    "another --out"
                )
            remove_temporaries(folder, folder)
            yield check
    except RecordError as error:
        raise RunError(f"{error}; give a folder that is writable and has space") from error
    finally:
        leases.clear()
        if not there:  # and nothing came of it
            with suppress(OSError):
                folder.rmdir()

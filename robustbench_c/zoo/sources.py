"""The files that a model was read from, and whether they are still what they were."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

from robustbench_c.errors import ModelError
from robustbench_c.zoo.oneline import one_line

Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes and time of the last change, ns."""


class SourceFile:
    """A file that a model was read from.

    Attributes:
        path: Where it lies.
        sha256: Hash of its content.
    """

    def __init__(self, path: Path, before: Stamp | None) -> None:
        """Take down what was read.

        Args:
            path: The file.
            before: Its `stamp` before the model was read from it.

        Raises:
            ModelError: It cannot be read, or changed since then.
        """
        self.path, self.sha256, self._stamp = path, _sha256(path), before
        if stamp(path) != before:
            raise ModelError(f"{one_line(path)} changed while it was read: load it again")

    def changed(self) -> bool:
        """Whether the file is there with another content; it is read only if its stamp differs."""
        now = stamp(self.path)
        if now is None or now == self._stamp:
            return False
        if _sha256(self.path) != self.sha256:
            return True
        self._stamp = now
        return False


def stamp(path: Path) -> Stamp | None:
    """Return what changes when a file does; None where there is no regular file."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {one_line(path)}: {error.strerror}") from error


def watch(sources: tuple[SourceFile, ...]) -> Callable[[], None]:
    """Return what makes sure that a run is still about the files that its model was read from.

    It raises ModelError where one has another content. One that is gone is no other: the model is
    in memory.
    """

    def check() -> None:
        for source in sources:
            if source.changed():
                raise ModelError(
                    f"{one_line(source.path)} changed while a run was at work on it: put the file "
                    "back to go on, or begin a run of the new one; what is finished is kept"
                )

    return check

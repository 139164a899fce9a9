"""The files that jobs are about must not change while a suite is worked on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from leaderboards.errors import one_line
from robustbench_c.errors import RunError
from robustbench_c.suites.job import TRAINED

_Sign = tuple[int, int, int]


class Files:
    """What this worker knows of the files of its jobs: models stay in memory, files may change.

    Args:
        out: Folder of the suite: where the files lie whose names begin with `trained:`.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._known: dict[str, tuple[_Sign, str]] = {}
        self._expected: dict[str, str] = {}

    def expect(self, path: str, sha256: str) -> None:
        """Say what a file was when a job was begun with it.

        Raises:
            RunError: Another job was begun with another content, or it is another now.
        """
        if self._expected.setdefault(path, sha256) != sha256:
            raise _changed(path)
        self.sha256(path)

    def sha256(self, path: str) -> str:
        """Return a file's SHA-256, read again where the file looks touched.

        Raises:
            RunError: It cannot be read, or has changed.
        """
        try:
            made = path.removeprefix(TRAINED)
            place = Path(path) if made == path else self._out / made
            status = place.stat()
            sign = (status.st_mtime_ns, status.st_size, status.st_ino)
            if path not in self._known or self._known[path][0] != sign:
                with place.open("rb") as file:
                    self._known[path] = sign, hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RunError(f"cannot read {one_line(path)}: {error.strerror}") from error
        found = self._known[path][1]
        if self._expected.setdefault(path, found) != found:
            raise _changed(path)
        return found


def _changed(path: str) -> RunError:
    return RunError(
        f"{one_line(path)} has changed since a job of this folder began with it: put the file "
        "back, or give another --out"
    )

"""Files of strangers: read whole, up to a limit, gzipped or not."""

from __future__ import annotations

import gzip
import stat
import zlib
from pathlib import Path

from robustbench_c.errors import HarnessError


def read_limited(path: Path, limit: int, error: type[HarnessError]) -> bytes:
    """Return the contents of a file, unpacked if its name ends in `.gz`.

    Args:
        path: The file.
        limit: Most bytes that are read, unpacked.
        error: What is raised if that does not work.

    Raises:
        HarnessError: `error`: no such file, not readable, empty, damaged, or larger than `limit`.
    """
    refuse_odd(path, error)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise error(f"{path}: damaged gzip file ({cause}); fetch it again") from cause
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    if not content:
        raise error(f"{path}: is empty")
    if len(content) > limit:
        raise error(f"{path}: larger than {limit >> 20} MiB unpacked, which is the most we read")
    return content


def refuse_odd(path: Path, error: type[HarnessError]) -> None:
    """Raise `error` unless there is a regular file: a pipe or a device would never end."""
    try:
        mode = path.stat().st_mode
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    if not stat.S_ISREG(mode):
        raise error(f"{path}: cannot be read: not a regular file")


def printable(name: str) -> str:
    """Quote a name out of a file for an error message: one line, not too long."""
    return repr(name if len(name) <= 60 else name[:57] + "...")

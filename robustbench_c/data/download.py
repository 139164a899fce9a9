"""A download that is checked before it gets its name."""

from __future__ import annotations

import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path

from robustbench_c.errors import DataError

_TIMEOUT_S = 30.0
_MAX_BYTES = 256 << 20


def cache_folder(name: str) -> Path:
    """Return the folder of a set's downloads, in the user's cache; it need not be there."""
    root = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(root) / "robustbench-c" / name


def download(urls: Sequence[str], target: Path, check: Callable[[Path], object]) -> None:
    """Fetch a file from the first mirror that has it.

    Args:
        urls: The same file at several places, tried in order.
        target: Where to put it. It appears whole and checked, or not at all.
        check: Raises DataError if the downloaded file, which it is given, is not the right one.

    Raises:
        DataError: No mirror gave the right file, or the target's folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise DataError(f"{target.parent} cannot be written ({error})") from error
    part = Path(temporary)
    faults = []
    try:
        for url in urls:
            try:
                _fetch(url, part)
                check(part)
                part.replace(target)
                return
            except (OSError, HTTPException, DataError) as error:
                host = url.split("/")[2]
                faults.append(f"{host}: {getattr(error, 'reason', error)}")
    finally:
        part.unlink(missing_ok=True)
    raise DataError(f"the download of {target.name} failed ({'; '.join(faults)})")


def _fetch(url: str, part: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply, part.open("wb") as file:
        received = 0
        while chunk := reply.read(1 << 20):
            received += len(chunk)
            if received > _MAX_BYTES:
                raise DataError(f"more than {_MAX_BYTES >> 20} MiB")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())

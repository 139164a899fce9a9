"""Files that are whole or absent, and reading that trusts nothing."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from leaderboards.errors import RecordError

TEMPORARY_SUFFIX = ".tmp"
_TRIES = 8
"""Of a write, whose temporary file others may take for what a crash left."""


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut.

    A temporary file in the same folder is written, synced and renamed, then the folder synced.

    Args:
        path: The file; its folder has to exist. An existing file is replaced.
        data: The content.

    Raises:
        RecordError: The disk is full, the folder is not writable, and so on; nothing is left.
    """
    for left in reversed(range(_TRIES)):
        temporary = _temporary(path)
        try:
            try:
                _write_synced(temporary, data)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)
            return
        except FileNotFoundError as error:
            # another worker, which began or ended just now, took it for what a crash left
            if not left or not path.parent.exists():
                raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror or error}") from error


def atomic_create_bytes(path: Path, data: bytes) -> bool:
    """Write a file as `atomic_write_bytes` does, unless there is one already.

    Returns:
        Whether this call made it: of several at once, one does.

    Raises:
        RecordError: As there.
    """
    for left in reversed(range(_TRIES)):
        temporary = _temporary(path)
        try:
            try:
                _write_synced(temporary, data)
                _link(temporary, path)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(path.parent)
            return True
        except FileNotFoundError as error:  # as in atomic_write_bytes
            if not left or not path.parent.exists():
                raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    return False


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name unless another has it; where there are no hard links, nearly so."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, "there is one", str(path)) from error
        temporary.replace(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        RecordError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise RecordError(f"cannot make the folder {path}: {error.strerror or error}") from error


def read_bytes(root: Path, path: Path, limit: int) -> bytes:
    """Read a file of a record that anybody may have written.

    Args:
        root: The record's folder.
        path: The file, inside of it.
        limit: The largest size to accept, in bytes.

    Raises:
        RecordError: The file is missing, outside of `root` (by a symbolic link), not a regular
            file, or too large.
    """
    refuse_escape(root, path)
    return read_regular(path, limit)


def read_regular(path: Path, limit: int) -> bytes:
    """Read a file that anybody may have written: a pipe or a device would never end.

    Args:
        path: The file.
        limit: The largest size to accept, in bytes.

    Raises:
        RecordError: The file is missing, not a regular file, or too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(f"{path} is not a regular file")
        if status.st_size > limit:
            raise RecordError(f"{path} has {status.st_size} bytes; the limit is {limit}")
        with path.open("rb") as file:
            return file.read(limit + 1)[:limit]
    except FileNotFoundError:
        raise RecordError(f"{path} is missing") from None
    except RecordError:
        raise
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        told = getattr(error, "strerror", None) or error
        raise RecordError(f"cannot read {path}: {told}") from error


def list_folder(root: Path, path: Path) -> list[Path]:
    """Return what a folder of a record holds, by name; nothing if the folder is not there.

    Raises:
        RecordError: The folder is outside of `root` or cannot be read.
    """
    try:
        refuse_escape(root, path)
        return sorted(path.iterdir()) if path.exists() else []
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error


def is_temporary(path: Path) -> bool:
    """Whether a crash left this file behind while `atomic_write_bytes` was at work."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)


def remove_temporaries(root: Path, folder: Path) -> None:
    """Remove what a crash left in a folder of a record.

    Raises:
        RecordError: The folder is outside of `root`, or not writable.
    """
    for path in filter(is_temporary, list_folder(root, folder)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RecordError(f"cannot remove {path}: {error.strerror or error}") from error


def refuse_escape(root: Path, path: Path) -> None:
    """Raise RecordError if symbolic links lead `path` out of `root`, or nowhere."""
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # a loop of them is a RuntimeError before Python 3.13
        raise RecordError(f"cannot read {path}: too many levels of symbolic links") from error
    if not inside:
        raise RecordError(f"{path} leads out of the record {root}")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and needs no such thing
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Whole files or none, and settings in TOML, for what is no record."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes, make_folder, read_regular
from robustbench_c.errors import RunError, UsageError

_MOST_TOML = 1 << 20


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


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a file of settings that anybody may have written.

    Args:
        path: The file.
        what: What it is to be, for messages: "recipe", say.

    Raises:
        UsageError: No regular file, larger than 1 MiB, or not TOML.
    """
    try:
        content = read_regular(path, _MOST_TOML)
    except RecordError as error:
        raise UsageError(f"cannot read the {what}: {error}") from error
    try:
        return tomllib.loads(content.decode())
    except RecursionError:
        raise UsageError(f"the {what} {path} is not TOML: brackets nested too deep") from None
    except ValueError as error:  # no UTF-8, or a number of thousands of digits, among others
        raise UsageError(f"the {what} {path} is not TOML: {error}") from error

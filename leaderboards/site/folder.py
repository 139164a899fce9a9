"""The folder of a site: made beside its place, and put there whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leaderboards.errors import RecordError
from leaderboards.files import make_folder

MARKER = ".robust-leaderboard"
"""A file that says that a folder is such a site, and may be replaced by the next."""
_TOLD = b"A site made by robust-leaderboard build; the next one replaces the whole folder.\n"


def check_place(out: Path) -> None:
    """Raise RecordError if a site may not be put there: something else is."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RecordError(f"{out} is no folder: choose another --out")
    if out.is_dir() and not (out / MARKER).is_file() and any(out.iterdir()):
        raise RecordError(
            f"{out} holds something that is no site of robust-leaderboard: choose another --out, "
            "or remove it"
        )


@contextmanager
def new_site(out: Path) -> Iterator[Path]:
    """Give a folder to build a site in; at the end it takes the place of `out`.

    If anything fails it is removed, and what was at `out` stays.

    Raises:
        RecordError: Something that is no site is there, or it cannot be written.
    """
    check_place(out)
    out = out.resolve()
    make_folder(out.parent)
    mark = secrets.token_hex(4)
    new, old = (out.with_name(f".{out.name}.{mark}.{kind}") for kind in ("new", "old"))
    try:
        new.mkdir()
        yield new
        put(new / MARKER, _TOLD)
        check_place(out)
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def put(path: Path, data: bytes) -> None:
    """Write a file of a site that is being built.

    Raises:
        RecordError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error

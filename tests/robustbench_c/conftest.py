"""Fixtures for tests of several parts."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@pytest.fixture
def read_only():
    """A context in which no file system can be written, as the system calls tell it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    real, real_handle = io.open, os.open

    def opened(file: object, mode: str = "r", *rest: object, **named: object) -> object:
        return refuse() if set(mode) & set("wxa+") else real(file, mode, *rest, **named)

    def handle(path: object, flags: int, *rest: object, **named: object) -> int | None:
        if os.path.lexists(path) and flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "there is one")
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return refuse() if writes else real_handle(path, flags, *rest, **named)

    def mkdir(path: object, *_: object, **__: object) -> None:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "there is one")
        refuse()

    @contextmanager
    def use() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(io, "open", opened)
            patch.setattr(os, "open", handle)
            patch.setattr(os, "mkdir", mkdir)
            for name in ("rename", "replace", "unlink", "rmdir", "link"):
                patch.setattr(os, name, refuse)
            yield

    return use

"""Makers of bad files of any kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

Make = Callable[[Path], object]
JUNK = bytes(np.random.RandomState(0).randint(0, 256, 4096, np.uint8))


def text(content: str) -> Make:
    return lambda path: path.write_text(content)


def data(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(size: int) -> Make:
    """A file of so many bytes that takes no room."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


class Runs:
    """A pickle of it makes a file when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def cut(make: Make, keep: float) -> Make:
    def shorter(path: Path) -> None:
        make(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])

    return shorter


def tree(folder: Path) -> set[tuple[str, int]]:
    """Everything below a folder, with its size."""
    return {(str(p.relative_to(folder)), p.lstat().st_size) for p in folder.rglob("*")}

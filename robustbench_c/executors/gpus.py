"""Which GPU a worker on this machine gets: one each, in turn. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
_ANY = ("auto", "cuda")
"""Values of `--device` that name no GPU of their own."""


def environment_of(
    worker: int,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    root: Path = Path("/"),
) -> dict[str, str]:
    """Return what a worker's environment has to say besides, so that it sees a GPU of its own.

    Args:
        worker: Which of the workers on this machine, from 1.
        arguments: Of the command; one with `--device cpu` or `cuda:1` is left alone.
        environment: Of this process. A scheduler's choice in it is what is shared out.
        root: Of the file system.

    Returns:
        Nothing where there are not two GPUs or more.
    """
    if _device(arguments) not in _ANY:
        return {}
    gpus = visible_gpus(environment, root)
    return {VISIBLE: gpus[(worker - 1) % len(gpus)]} if len(gpus) > 1 else {}


def visible_gpus(environment: Mapping[str, str], root: Path = Path("/")) -> list[str]:
    """Return the GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them.

    Without that variable they are counted: those of the driver that have a device file (a
    container may have fewer than the machine). As in CUDA, a name of nothing ends the list.
    """
    told = environment.get(VISIBLE)
    if told is None:
        known = _entries(root / "proc/driver/nvidia/gpus", r".+")
        files = _entries(root / "dev", r"nvidia\d+")
        return [str(i) for i in range(min(known, files))]
    found: list[str] = []
    for name in (part.strip() for part in told.split(",")):
        if not name or name.startswith("-"):
            break
        found.append(name)
    return found


def _device(arguments: Sequence[str]) -> str:
    """The last `--device` of a command line, as typer reads it."""
    found = "auto"
    for word, following in pairwise((*arguments, "")):
        if word == "--device":
            found = following
        elif word.startswith("--device="):
            found = word.removeprefix("--device=")
    return found


def _entries(folder: Path, pattern: str) -> int:
    try:
        return sum(re.fullmatch(pattern, path.name) is not None for path in folder.iterdir())
    except OSError:
        return 0

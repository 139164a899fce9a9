"""`--workers` and `--shard`: one run by several processes that share its folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from robustbench_c.errors import UsageError
from robustbench_c.executors import Work
from robustbench_c.executors.local import beside as others

Workers = Annotated[
    int,
    typer.Option("--workers", min=1, max=1024, help="Processes that share the work, here."),
]
Shard = Annotated[
    str | None,
    typer.Option(help="I/N: be the I-th of N such commands, anywhere, that share --out."),
]

_NOT_PASSED_ON = ("--workers", "--executor", "--slurm")
_SWITCHES_NOT_PASSED_ON = ("--no-wait",)


def start_of(shard: str | None) -> float:
    """Return which part of each step a worker begins with.

    Args:
        shard: `I/N` with 1 <= I <= N; None for one alone.

    Raises:
        UsageError: It is not of that form.
    """
    if shard is None:
        return 0.0
    first, _, last = shard.partition("/")
    if all(part.isascii() and part.isdigit() and len(part) < 7 for part in (first, last)):
        i, n = int(first), int(last)
        if 1 <= i <= n:
            return (i - 1) / n
    raise UsageError(f"--shard {shard} is not I/N with I from 1 to N, such as 2/4")


def refuse_overwrite(overwrite: bool, workers: int, shard: str | None) -> None:
    """Raise UsageError where one of several workers is to throw the record away."""
    if overwrite and (workers > 1 or shard is not None):
        raise UsageError("--overwrite is for one process: start afresh without workers first")


@contextmanager
def beside(workers: int, shard: str | None) -> Iterator[None]:
    """Run this command in other processes as well while the block runs; it is one of the workers.

    Has to be entered before torch is imported. One that fails is said on stderr: the others do its
    work.

    Args:
        workers: Processes in all.
        shard: That of this process; excludes others here.

    Raises:
        UsageError: Both are asked for.
    """
    if workers == 1:
        yield
        return
    if shard is not None:
        raise UsageError("--shard is for one process: leave out --workers, or --shard")
    with others(
        this_command(), workers, [], lambda line: print(f"notice: {line}", file=sys.stderr)
    ):
        yield


def this_command() -> Work:
    """The command line of this process, without what says who works on it."""
    words, skip = [], False
    for word in sys.argv[1:]:
        if not skip and word.split("=")[0] not in (*_NOT_PASSED_ON, *_SWITCHES_NOT_PASSED_ON):
            words.append(word)
        skip = not skip and word in _NOT_PASSED_ON
    return Work(Path(sys.argv[0]).name, tuple(words))

"""`--workers` and `--shard`: one run by several processes that share its folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Annotated

import typer

from robustbench_c.errors import UsageError

Workers = Annotated[
    int,
    typer.Option("--workers", min=1, max=1024, help="Processes that share the work, here."),
]
Shard = Annotated[
    str | None,
    typer.Option(help="I/N: be the I-th of N such commands, anywhere, that share --out."),
]
_THREADS = "OMP_NUM_THREADS"


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

    Each gets its part of the cores, unless OMP_NUM_THREADS says how many threads it has: the same
    for all, since the number is part of what a run is. Has to be entered before torch is imported.
    One that fails is said on stderr: the others do its work.

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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault(_THREADS, str(max(1, (cores or 1) // workers)))
    others = [_start(i, workers) for i in range(2, workers + 1)]
    try:
        yield
    except BaseException:
        for process, _ in others:
            process.terminate()
        raise
    finally:
        for number, (process, log) in enumerate(others, 2):
            code = process.wait()
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            if code > 0:
                told = lines[-1] if lines else "no message"
                print(f"notice: worker {number} ended with code {code}: {told}", file=sys.stderr)
            log.close()


def _start(number: int, workers: int) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    words, skip = [sys.executable, sys.argv[0]], False
    for word in sys.argv[1:]:
        if not skip and not word.startswith("--workers"):
            words.append(word)
        skip = not skip and word == "--workers"
    log = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the process has ended
    words += ["--shard", f"{number}/{workers}"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log), log

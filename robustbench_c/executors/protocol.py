"""What an executor is, and the one that starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Here = Callable[[str | None], int]
"""Does the work in this process as the worker `I/N`, or alone (None); returns the exit code."""
Say = Callable[[str], None]
"""Called with one line about the workers."""


@dataclass(frozen=True)
class Work:
    """A command that many can do together.

    Attributes:
        program: Its console script, such as `robust-eval`.
        arguments: What follows, without `--shard`.
    """

    program: str
    arguments: tuple[str, ...]

    def words(self, worker: int, workers: int) -> list[str]:
        """The command line of one worker, counted from 1, in a process of its own."""
        shard = ("--shard", f"{worker}/{workers}")
        return [sys.executable, "-m", "robustbench_c", self.program, *self.arguments, *shard]


@dataclass(frozen=True)
class Ended:
    """How a worker ended.

    Attributes:
        worker: Which, from 1.
        exit_code: Its exit code; below 0 the signal that killed it.
        message: Its last line on stderr, or what the scheduler says.
    """

    worker: int
    exit_code: int
    message: str = ""


class Executor(Protocol):
    """Runs the workers of a command until they have ended."""

    def run(self, work: Work, workers: int, here: Here, say: Say) -> tuple[Ended, ...]:
        """Run `workers` of them.

        Args:
            work: The command.
            workers: How many, from 1 up.
            here: Does the work of one in this process, for executors that want one of them here.
            say: Told what is worth a line while they work.

        Returns:
            How each ended. One that failed is no error: what counts is what the folder holds.
        """
        ...


class InlineExecutor:
    """One worker: this process."""

    def run(self, work: Work, workers: int, here: Here, say: Say) -> tuple[Ended, ...]:
        """Do the work here; `workers` is 1."""
        return (Ended(1, here(None)),)

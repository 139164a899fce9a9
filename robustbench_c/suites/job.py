"""One job of a suite: one command line, that makes one run or one model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from leaderboards.canonical import sha256_json

PROGRAMS = {
    "eval": "robust-eval",
    "corrupt": "robust-corrupt",
    "smooth": "robust-smooth",
    "train": "robust-train",
}
"""What `command` in a suite can be, and the console script it stands for."""

MODELS = "models"
"""Folder of the models that a suite trains."""
TRAINED = "trained:"
"""Stands before the name of one of them, where a job is about it."""


@dataclass(frozen=True)
class Job:
    """A command line.

    Attributes:
        command: A key of `PROGRAMS`.
        arguments: `--option=value`, without where the results go.
        files: Files among the values, by path: what the job was begun with must not change.
        name: Of the model that a job trains.
        threads: CPU threads: results are those of one number of them.
    """

    command: str
    arguments: tuple[str, ...]
    files: tuple[str, ...] = ()
    name: str | None = None
    threads: int = 1

    @property
    def program(self) -> str:
        """The console script."""
        return PROGRAMS[self.command]

    @property
    def id(self) -> str:
        """Short hash of what it does."""
        return sha256_json([self.command, self.threads, *self.arguments])[:16]

    @property
    def trains(self) -> bool:
        """Whether it makes a model, which one worker does alone, and others may need."""
        return self.command == "train"

    @property
    def folder(self) -> str:
        """Of a model that is trained: where, below the folder of the suite."""
        return f"{MODELS}/{self.name}-{self.id[:8]}"

    @property
    def made(self) -> tuple[str, str]:
        """Of a model that is trained: its weights and its card, below the folder of the suite."""
        return f"{self.folder}/{self.name}.safetensors", f"{self.folder}/{self.name}.json"

    @property
    def asks_for(self) -> str | None:
        """Name of the model of another job that it is about; None if it is about none."""
        sign = f"--model={TRAINED}"
        return next((w.removeprefix(sign) for w in self.arguments if w.startswith(sign)), None)

    def __str__(self) -> str:
        return shlex.join([self.program, *self.arguments])

"""One bad input, and how a command has to end with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

USAGE, MODEL, DATA, ATTACK, RECORD, CHECK = 2, 3, 4, 5, 6, 7
"""Exit codes, as in `robustbench_c.errors`."""
ESCAPE = "\x1b[31mred\x1b]0;title\x07\r\n\x9b2Jsecond line"
"""What must not reach a terminal."""


@dataclass(frozen=True)
class Case:
    """A command line that has to be refused.

    Attributes:
        name: Unique among those of a command.
        command: The console script.
        code: Its exit code.
        words: Part of its one line on stderr.
        arguments: Those that begin with @ name a file of `bad_files`, up to a colon.
        tells: Whether it prints findings on stdout as well.
    """

    name: str
    command: str
    code: int
    words: str
    arguments: tuple[str, ...]
    tells: bool = False

    @property
    def id(self) -> str:
        return f"{self.command.removeprefix('robust-')}-{self.name}"


def cases(
    command: str, common: Iterable[object], table: Iterable[tuple[object, ...]], tells: bool = False
) -> list[Case]:
    """Cases of one command: each a name, a code, words, and arguments after the common ones."""
    return [
        Case(
            str(name), command, int(str(code)), str(words), tuple(map(str, (*common, *more))), tells
        )
        for name, code, words, *more in table
    ]

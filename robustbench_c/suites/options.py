"""The options of a command, as a suite may set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import typer

from leaderboards.errors import one_line
from robustbench_c.cli.programs import app_of
from robustbench_c.errors import UsageError, did_you_mean

MACHINE = ("device", "batch_size", "max_memory", "trust_checkpoint")
"""Parameters that say how a machine does a job: given beside `--suite`, they are for all jobs."""
_NEVER = (
    *("out", "workers_", "shard", "overwrite", "resume", "as_json", "list_", "version", "help"),
    *("suite_", "only", "plan_", "executor", "slurm", "no_wait"),
    *("property_", "instances", "reference", "timeout"),
)
"""Parameters that are no part of a job."""


@dataclass(frozen=True)
class Options:
    """What can be set of a command.

    Attributes:
        program: The console script.
        by_key: Its options, by name without dashes: whether each is a switch, and is repeatable.
        of_machine: Those of `MACHINE` that it has, by name without dashes.
        command: What reads its command line.
    """

    program: str
    by_key: Mapping[str, tuple[bool, bool]]
    of_machine: frozenset[str]
    command: Any
    _known: set[str] = field(default_factory=set)

    def __contains__(self, key: object) -> bool:
        return key in self.by_key

    def unknown(self, key: str) -> str:
        """What to say of a key that is none of them."""
        hint = did_you_mean(key, sorted(self.by_key))
        return f"{self.program} has no option '{one_line(key)}' that a suite can set; {hint}"

    def words(self, key: str, value: object) -> list[str]:
        """An option as words of a command line.

        Raises:
            UsageError: The value is none that can be written there.
        """
        switch, many = self.by_key[key]
        if switch:
            if not isinstance(value, bool):
                raise UsageError(f"'{key}' is true or false, not {one_line(repr(value))}")
            return [f"--{key}"] if value else []
        values = value if many and isinstance(value, list) else [value]
        for each in values:
            if isinstance(each, bool) or not isinstance(each, str | int | float) or each == "":
                raise UsageError(f"'{key}' cannot be {one_line(repr(each))}")
            if not str(each).isprintable():
                raise UsageError(f"'{key}' holds what cannot be seen: {one_line(repr(each))}")
        return [f"--{key}={each}" for each in values]

    def check(self, word: str) -> None:
        """Let the command read a word of a command line, and do nothing.

        Raises:
            UsageError: It would refuse it.
        """
        if word in self._known:
            return
        try:
            self.command.make_context(self.program, [word]).close()
        except Exception as error:
            describe = getattr(error, "format_message", None)
            if describe is None:
                raise
            raise UsageError(one_line(describe())) from error
        self._known.add(word)


@cache
def options_of(program: str) -> Options:
    """Return what a suite can set of a console script."""
    found: dict[str, tuple[bool, bool]] = {}
    machine: set[str] = set()
    command: Any = typer.main.get_command(app_of(program))
    # the batch size of a training is one of its settings
    own = [name for name in MACHINE if (program, name) != ("robust-train", "batch_size")]
    for option in command.params:
        names = [name.removeprefix("--") for name in option.opts if name.startswith("--")]
        if names and option.name not in (*_NEVER, *own):
            found[names[0]] = (bool(option.is_flag), bool(option.multiple))
        elif names and option.name in own:
            machine.add(names[0])
    return Options(program, found, frozenset(machine), command)

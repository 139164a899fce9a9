"""How every command ends: with its result, or with one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import typer

from robustbench_c.errors import UsageError, one_line

_HOME = Path(__file__).parents[2]
_SIBLINGS = ("attacks", "certify", "leaderboards")
_INTERRUPTED = 130
_STORAGE = 6
_LONGEST = 600


def new_app() -> typer.Typer:
    """A typer application without boxed tracebacks and without shell completion options."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run_app(
    app: typer.Typer,
    command: str,
    *,
    stopped: str = "stopped",
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Run a command line and exit with its code.

    Errors of this project (they carry an `exit_code`), wrong usage, a folder that cannot be
    written and a full disk become `<command>: error: <one line>`. Anything else is a defect of
    ours, and keeps its traceback.

    Args:
        app: From `new_app`.
        command: Name of the console script.
        stopped: What to say after Ctrl-C.
        arguments: Instead of those of the process.

    Raises:
        SystemExit: Always.
    """
    if not sys.warnoptions:  # those of libraries; ours are notices
        warnings.simplefilter("ignore")
    try:
        _check_siblings()
        _refuse_empty(sys.argv[1:] if arguments is None else arguments)
        code = app(arguments, prog_name=command, standalone_mode=False)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        shown = as_line(error)
        if shown is None:
            raise
        message, code = shown
        print(f"{command}: error: {message}", file=sys.stderr)
    if code == _INTERRUPTED:
        print(f"\n{command}: {stopped}", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse what an unset variable of a shell leaves: an empty path would be the folder we are in.

    Raises:
        UsageError: Names the option.
    """
    for before, word in zip(("", *arguments), arguments, strict=False):
        name, equals, value = word.partition("=")
        if not word or (equals and not value and name.startswith("--")):
            option = name or (before if before.startswith("-") else "an argument")
            raise UsageError(f"{option} is empty: give it a value, or leave it out")


def _check_siblings() -> None:
    """Refuse packages of others under the names of ours; imports none of them.

    Raises:
        UsageError: Says which package hides which.
    """
    for name in _SIBLINGS:
        own, spec = _HOME / name / "__init__.py", find_spec(name)
        origin = spec.origin if spec else None
        if origin is None or Path(origin).resolve() != own.resolve():
            raise UsageError(
                f"the package '{name}' beside {_HOME / 'robustbench_c'} is "
                f"{f'hidden by {origin}' if origin else 'missing'}: mend PYTHONPATH or the "
                "installation"
            )


def as_line(error: Exception) -> tuple[str, int] | None:
    """The message, one printable line, and the exit code of an error that users can act on."""
    if isinstance(error, BrokenPipeError):
        # The reader has gone (`| head`); keep the interpreter from failing again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "the output was closed before its end", 1
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        # typer brings a click of its own or the installed one: known by what they can do.
        describe = getattr(error, "format_message", None)
        message = describe() if describe else str(error)
        if message == "Missing command." and (context := getattr(error, "ctx", None)):
            message = f"give a command: {', '.join(context.command.list_commands(context))}"
        return one_line(message, _LONGEST), code
    if isinstance(error, OSError) and (
        error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)
    ):
        place = f": {str(error.filename)[:200]}" if error.filename else ""
        return one_line(f"{error.strerror}{place}", _LONGEST), _STORAGE
    return None

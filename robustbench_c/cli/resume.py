"""`--resume RUN`: go on with one run, and with no other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_c.cli import options
from robustbench_c.errors import RunError, UsageError

Resume = Annotated[
    Path | None,
    typer.Option(help="Folder of a run: go on with it; refused if these options mean another."),
]


def check_resume(context: typer.Context) -> None:
    """Make sure that what is to be gone on with is a run, and is left where it is.

    Raises:
        RunError: It is no run.
        UsageError: An option that does not go with it.
    """
    folder: Path | None = context.params["resume"]
    if folder is None:
        return
    if given := options.given_of(context, ("out", "overwrite")):
        raise UsageError(f"--resume goes on with a run where it lies: leave out {given}")
    from leaderboards.store import MANIFEST, is_run

    if not is_run(folder):
        raise RunError(f"--resume {folder} is no run: it has no {MANIFEST}")

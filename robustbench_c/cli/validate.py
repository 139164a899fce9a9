"""`robust-leaderboard validate`: is a record whole, and does it agree with itself?"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.errors import CheckFailedError

if TYPE_CHECKING:
    from leaderboards.validation.findings import Finding, Findings

_MEMORY = 6 << 30
"""Bytes of address space that a hostile file can make this process take, at most."""
_LATER = (
    "rows, hashes, counts and stored examples were checked without the model: "
    "robust-runs verify RUN --prove replays every example and proves every certificate again"
)


def validate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or .zip files of one.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON instead.")
    ] = False,
) -> None:
    """Check records that anybody may have sent (exit code 7 if one is not to be trusted).

    No code in them is run, no file outside of them is read, and of an archive nothing is written
    unless all of it is fit to be. What is found is an error, a warning (the run is not ranked) or
    a note.
    """
    from leaderboards.validation.validate import validate as check

    _limit_memory()
    looked = [check(run) for run in runs]
    if as_json:
        print(json.dumps([each.as_json() for each in looked], indent=2))
    else:
        for each in looked:
            _show(each)
        print(_LATER)
    bad = [each for each in looked if each.errors]
    if bad:
        first = next(each for each in bad[0].found if each.severity == "error")
        raise CheckFailedError(
            f"{len(bad)} of {len(looked)} records not to be trusted; the first: {bad[0].record}: "
            f"{first.place}: {first.problem}"
        )


def _show(looked: Findings) -> None:
    errors = f"{looked.errors} error{'' if looked.errors == 1 else 's'}"
    print(f"{looked.record}: {errors if looked.errors else 'valid'}")
    for finding in looked.found:
        print(f"  {_line(finding)}")
    if looked.left_out:
        print(f"  and {looked.left_out} more")


def _line(finding: Finding) -> str:
    advice = f" ({finding.advice})" if finding.advice else ""
    return f"{finding.severity}: {finding.place}: {finding.problem}{advice}"


def _limit_memory() -> None:
    """Have the system refuse what a hostile file asks for, where it can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    free = resource.RLIM_INFINITY
    most = _MEMORY if soft == free else min(soft, _MEMORY)
    if hard == free or most <= hard:
        with suppress(ValueError, OSError):  # macOS has the call, and may refuse it
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))

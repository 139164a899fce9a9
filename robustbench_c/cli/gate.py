"""`robust-leaderboard check` and `baseline`: fail where a model got worse than another.

`check` ends with 0 (fine), 1 (regressed) or 2 (not comparable, or wrong usage). A defect of ours
ends with 1 as well, but shows a traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.errors import UsageError

if TYPE_CHECKING:
    from leaderboards.baseline import Baseline
    from leaderboards.gate import Outcome

_FLIPS = 20

MarkdownFile = Annotated[
    Path | None, typer.Option("--markdown", help="Write a summary for a pull request.")
]
JunitFile = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.")]


def check(
    baseline: Annotated[
        Path, typer.Option(help="Run to compare with, or a file of `baseline`.", metavar="PATH")
    ],
    run: Annotated[Path, typer.Option(help="Run to check.", metavar="PATH")],
    alpha: Annotated[
        float,
        typer.Option(help="A run that is no worse fails with this probability at most."),
    ] = 0.05,
    tolerance: Annotated[
        float, typer.Option(help="Percentage points a metric may drop, as measured.")
    ] = 0.0,
    max_lost: Annotated[
        int | None,
        typer.Option(help="Fail also if a metric loses more samples than this, by chance or not."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Of clean, robust, certified: a,b [all the run has].")
    ] = None,
    allow_unreliable: Annotated[
        bool,
        typer.Option("--allow-unreliable", help="Let new red flags pass, which fail else."),
    ] = False,
    markdown: MarkdownFile = None,
    junit: JunitFile = None,
    json: JsonFile = None,
) -> None:
    """Fail (exit code 1) if RUN is worse than BASELINE on the same samples, beyond chance.

    One-sided exact McNemar tests, Holm-corrected over the metrics. A red flag that the baseline has
    not fails as well: robust accuracy cannot be trusted then. Exit code 2: the two cannot be
    compared.
    """
    asked = _metrics(metrics)
    if not 0 < alpha < 1:
        raise UsageError(f"--alpha has to be between 0 and 1: {alpha:g}")
    if not 0 <= tolerance <= 100:
        raise UsageError(f"--tolerance has to be 0 to 100 percentage points: {tolerance:g}")
    if max_lost is not None and max_lost < 0:
        raise UsageError(f"--max-lost has to be at least 0: {max_lost}")
    from leaderboards.baseline import read_baseline
    from leaderboards.errors import NotComparableError, RecordError
    from leaderboards.gate import Limits
    from leaderboards.gate import check as compare
    from leaderboards.gate_report import SUITE, gate_json, gate_junit, gate_markdown, not_comparable

    limits = Limits(alpha, tolerance, max_lost, asked, allow_unreliable)
    try:
        outcome = compare(read_baseline(baseline), read_baseline(run), limits)
    except RecordError as error:
        write_reports(*not_comparable(SUITE, str(error)), markdown, junit, json)
        raise NotComparableError(f"not comparable: {error}") from None
    reports = gate_markdown(outcome), gate_junit(outcome), gate_json(outcome)
    write_reports(*reports, markdown, junit, json)
    _show(outcome)
    if outcome.failures:
        raise typer.Exit(1)


def baseline(
    run: Annotated[Path, typer.Argument(help="Folder of one run.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("baseline.json"),
) -> None:
    """Write the verdicts of a run as a file that is small enough to be committed, for `check`."""
    from leaderboards.baseline import Baseline
    from leaderboards.entries import read_entry
    from leaderboards.files import atomic_write_bytes, make_folder

    found = Baseline.of(read_entry(run))
    data = found.to_bytes()
    make_folder(out.parent)
    atomic_write_bytes(out, data)
    print(f"{out}: {found.data.samples} samples of {_who(found)}, {len(data):,} bytes")


def write_reports(
    summary: str,
    xml: bytes,
    content: bytes,
    markdown: Path | None,
    junit: Path | None,
    json: Path | None,
) -> None:
    """Write the reports that were asked for."""
    from leaderboards.files import atomic_write_bytes, make_folder

    for path, data in ((markdown, summary.encode()), (junit, xml), (json, content)):
        if path is not None:
            make_folder(path.parent)
            atomic_write_bytes(path, data)


def _metrics(text: str | None) -> tuple[str, ...] | None:
    known = ("clean", "robust", "certified")
    if text is None:
        return None
    asked = [name.strip() for name in text.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise UsageError(f"--metrics: '{unknown[0]}' is none of {', '.join(known)}")
    return tuple(name for name in known if name in asked)


def _who(side: Baseline) -> str:
    from leaderboards.errors import one_line

    return f"{one_line(side.model.name, 60)} ({side.model.sha256[:12]})"


def _show(outcome: Outcome) -> None:
    from rich.table import Table

    from leaderboards.errors import one_line
    from leaderboards.gate_report import (
        FLIP_HEADER,
        HEADER,
        flip_row,
        rows,
        rule,
        verdict_line,
    )
    from robustbench_c.cli.console import wide_console

    console, run, before = wide_console(), outcome.run, outcome.baseline
    print(f"{_who(run)} against the baseline {_who(before)}")
    table = Table()
    for i, title in enumerate(HEADER):
        table.add_column(title, justify="right" if 2 < i < len(HEADER) - 1 else "left")
    for row in rows(outcome):
        table.add_row(*row)
    console.print(table)
    flips = outcome.flips
    if flips:
        listed = Table(*FLIP_HEADER, box=None)
        for flip in flips[:_FLIPS]:
            listed.add_row(*(one_line(cell, 40) for cell in flip_row(flip)))
        console.print(listed)
        if len(flips) > _FLIPS:
            print(f"and {len(flips) - _FLIPS} more of {len(flips)} (--json FILE has them all)")
    for note in outcome.notes:
        print(one_line(f"note: {note}"))
    print(f"rule: {rule(outcome)}")
    print(verdict_line(outcome))

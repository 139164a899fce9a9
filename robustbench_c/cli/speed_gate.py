"""`robust-leaderboard speed`: fail where a benchmark got slower; exit codes as of `check`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from robustbench_c.cli.gate import JsonFile, JunitFile, MarkdownFile, write_reports
from robustbench_c.errors import UsageError


def speed(
    baseline: Annotated[
        Path, typer.Option(help="File of pytest --benchmark-json before.", metavar="FILE")
    ],
    head: Annotated[Path, typer.Option(help="File of the same now.", metavar="FILE")],
    max_slowdown: Annotated[
        float, typer.Option(help="Times as slow that a benchmark may become.")
    ] = 1.25,
    markdown: MarkdownFile = None,
    junit: JunitFile = None,
    json: JsonFile = None,
) -> None:
    """Fail (exit code 1) if a benchmark is slower, in units of a reference workload, beyond noise.

    Both files need test_reference_workload, timed in the same run (tests/benchmarks has it). Exit
    code 2: they cannot be compared.
    """
    if not 1 <= max_slowdown < math.inf:
        raise UsageError(f"--max-slowdown has to be at least 1: {max_slowdown:g}")
    from rich.table import Table

    from leaderboards.errors import NotComparableError, RecordError, one_line
    from leaderboards.gate_report import not_comparable
    from leaderboards.speed import compare_speed, read_timings
    from leaderboards.speed_report import (
        HEADER,
        SUITE,
        row,
        rule,
        speed_json,
        speed_junit,
        speed_markdown,
        verdict_line,
    )
    from robustbench_c.cli.console import wide_console

    try:
        found = compare_speed(read_timings(baseline), read_timings(head), max_slowdown)
    except RecordError as error:
        write_reports(*not_comparable(SUITE, str(error)), markdown, junit, json)
        raise NotComparableError(f"not comparable: {error}") from None
    reports = speed_markdown(found), speed_junit(found), speed_json(found)
    write_reports(*reports, markdown, junit, json)
    table = Table()
    for i, title in enumerate(HEADER):
        table.add_column(title, justify="right" if 0 < i < len(HEADER) - 1 else "left")
    for ratio in found.ratios:
        table.add_row(*(one_line(cell, 100) for cell in row(ratio)))
    wide_console().print(table)
    for told, names in (("new", found.new), ("missing", found.missing)):
        for name in names:
            print(one_line(f"{told}: {name}"))
    print(f"rule: {rule(found)}")
    print(one_line(verdict_line(found)))
    if found.slower:
        raise typer.Exit(1)

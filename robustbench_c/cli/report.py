"""`robust-report`: the certification report of a run, as HTML, PDF or Markdown. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_c.cli.app import new_app, run_app
from robustbench_c.errors import UsageError

app = new_app()


def main() -> None:
    """Run the command line."""
    run_app(app, "robust-report")


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs of one model.")
    ],
    out: Annotated[
        list[Path],
        typer.Option(
            "--out", help="File to write: .html, .pdf or .md. Can be given several times."
        ),
    ],
    slices: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns sample_id,slice: groups to report on their own."),
    ] = None,
) -> None:
    """Write the certification report of a run: a page of summary in plain words, then all of it.

    Several runs of one model (its predictions and its explanations, say) make one report. Runs are
    checked first; of one that does not agree with itself there is no report.
    """
    for path in out:
        if path.suffix.lower() not in (".html", ".pdf", ".md"):
            raise UsageError(f"--out {path}: a report ends in .html, .pdf or .md")
    from leaderboards.files import atomic_write_bytes, make_folder
    from leaderboards.report.build import build
    from leaderboards.report.write import report_bytes

    made = build(runs, slices)
    written = [(path, report_bytes(made, path.suffix.lower())) for path in out]
    for path, data in written:
        make_folder(path.parent)
        atomic_write_bytes(path, data)
        print(f"report: {path} ({len(data) / 1024:.0f} kB)")

"""`robust-leaderboard`: boards of runs, shown, written and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from robustbench_c.cli import gate, publish, speed_gate, validate
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.cli.records import Jobs, Runs, Strict, processes, read_all, read_records
from robustbench_c.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leaderboards.boards import Board
    from leaderboards.export import Format

app = new_app()
for command in (gate.check, gate.baseline, speed_gate.speed, validate.validate):
    app.command()(command)
app.command()(publish.model_card)
app.command()(publish.mlflow)

TITLE = "Robustness and certification"
"""Of a site, unless another is given."""
FORMATS = ("csv", "json", "md", "latex")

Chosen = Annotated[
    list[str] | None,
    typer.Option(
        "--board", help="Only this board (its short name, `board-...`, or how it begins)."
    ),
]


def main() -> None:
    """Run the command line."""
    run_app(app, "robust-leaderboard")


@app.callback()
def about() -> None:
    """Boards of runs: what may be compared is compared, nothing else.

    Runs share a board if protocol, data and samples are the same. Each run is checked first; one
    that cannot be trusted is named on stderr and left out (exit code 6 if none is left, or with
    --strict).
    """


@app.command()
def show(runs: Runs, board: Chosen = None, jobs: Jobs = None, strict: Strict = False) -> None:
    """Print the boards: rates with 95% intervals and, after #, the ranks a model may have."""
    from rich.table import Table

    from leaderboards.board_columns import shown_columns
    from leaderboards.export import cell
    from robustbench_c.cli.console import wide_console

    console = wide_console()
    for each in _boards(runs, board, jobs, strict):
        columns = shown_columns(each, short=True)
        table = Table(box=None)
        for column in columns:
            table.add_column(column.title, justify="left" if column.kind == "text" else "right")
        for row in each.rows:
            table.add_row(*(cell(column, row) for column in columns))
        console.print(f"{each.title} ({each.slug})", table, "", sep="\n")


@app.command()
def export(
    runs: Runs,
    form: Annotated[str, typer.Option("--format", help=f"Format: {', '.join(FORMATS)}.")] = "csv",
    board: Chosen = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; standard output without.")
    ] = None,
    jobs: Jobs = None,
    strict: Strict = False,
) -> None:
    """Write the boards as one file: CSV or JSON with every column, Markdown or LaTeX tables."""
    if form not in FORMATS:
        raise UsageError(f"--format {form}: {did_you_mean(form, list(FORMATS))}")
    from leaderboards.export import export as exported
    from leaderboards.files import atomic_write_bytes

    text = exported(_boards(runs, board, jobs, strict), cast("Format", form))
    if out is None:
        print(text, end="")
    else:
        atomic_write_bytes(out, text.encode())


@app.command()
def build(
    runs: Runs,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the site; an older one there is replaced.")
    ],
    title: Annotated[str, typer.Option("--title", help="Title of the site.")] = TITLE,
    jobs: Jobs = None,
    strict: Strict = False,
) -> None:
    """Build a static site: boards, plots, exports and a page for each run; it works offline."""
    from leaderboards.site import build_of, sample_columns
    from leaderboards.site.folder import check_place

    check_place(out)
    entries, refused = read_all(runs, jobs, strict, keep=sample_columns)
    built = build_of(entries, refused, out, jobs=processes(jobs, len(entries)), title=title)
    print(f"{_counted(built.runs, 'run')} on {_counted(len(built.boards), 'board')}: {built.index}")


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _boards(
    runs: list[Path], chosen: list[str] | None, jobs: int | None, strict: bool
) -> Sequence[Board]:
    from leaderboards.boards import boards_of

    boards = boards_of(read_records(runs, jobs, strict))
    for name in chosen or ():
        if not any(board.slug.startswith(name) for board in boards):
            known = ", ".join(f"{board.slug} ({board.title})" for board in boards)
            raise UsageError(f"no board '{name}': {known}")
    return [b for b in boards if not chosen or any(b.slug.startswith(name) for name in chosen)]

"""Boards as text: CSV and JSON for machines, Markdown and LaTeX for people.

The same records give the same bytes, in whatever order and wherever they lie. Names come from
strangers: they are quoted for the format, and no spreadsheet takes them for a formula.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from leaderboards.board_columns import COLUMNS, BoardColumn, not_looked, shown_columns
from leaderboards.boards import Board, Row
from leaderboards.column_values import Value
from leaderboards.markdown import table

EXPORT_SCHEMA: Final = 1
Format = Literal["csv", "json", "md", "latex"]

NOT_LOOKED = "not looked for"
_PARTS = {column.key: column for column in COLUMNS if column.of is not None}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|~&@:]|(?<=www)\.", re.IGNORECASE)
"""What marks up, links or mentions inside of a line, or ends the cell of a table."""


def export(boards: Sequence[Board], form: Format) -> str:
    """Return boards as text.

    Args:
        boards: In the order they are to have.
        form: `csv`: one table of all boards and columns; `json`: the same by board; `md` and
            `latex` (booktabs): a table for each board, of the columns for people.
    """
    makers = {"csv": _csv, "json": _json, "md": _markdown, "latex": _latex}
    return makers[form](boards)


def plain(value: Value) -> str | float | int | bool | None:
    """Return a value as JSON has it: times as ISO 8601 text in UTC, to the second."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value


def cell(column: BoardColumn, row: Row) -> str:
    """Return a cell for people: a rate with its interval and rank; `-` where nothing is known."""
    if not_looked(column, row):
        return NOT_LOOKED
    value = plain(column.value(row))
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if column.kind == "rate" and isinstance(value, float):
        return f"{100 * value:.1f}%{_interval(column, row)}{_rank(column, row)}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _interval(column: BoardColumn, row: Row) -> str:
    if f"{column.key}_lower" not in _PARTS:
        return ""
    lower, upper = (_PARTS[f"{column.key}_{end}"].value(row) for end in ("lower", "upper"))
    if not (isinstance(lower, float) and isinstance(upper, float)):
        return ""
    return f" [{100 * lower:.1f}, {100 * upper:.1f}]"


def _rank(column: BoardColumn, row: Row) -> str:
    if f"{column.key}_rank_best" not in _PARTS:
        return ""
    best, worst = (_PARTS[f"{column.key}_rank_{end}"].value(row) for end in ("best", "worst"))
    if best is None:
        return ""
    return f" #{best}" if best == worst else f" #{best}-{worst}"


def _csv(boards: Sequence[Board]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["board", "board_title", *(column.key for column in COLUMNS)])
    for board in boards:
        for row in board.rows:
            values = [plain(column.value(row)) for column in COLUMNS]
            writer.writerow([board.slug, _inert(board.title), *map(_csv_cell, values)])
    return text.getvalue()


def _csv_cell(value: str | float | int | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _inert(value) if isinstance(value, str) else repr(value)


def _inert(text: str) -> str:
    """Text that a spreadsheet shows and does not work out."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json(boards: Sequence[Board]) -> str:
    found: list[dict[str, Any]] = []
    for board in boards:
        protocol, data, ids, labels = board.key
        rows = [{c.key: plain(c.value(row)) for c in COLUMNS} for row in board.rows]
        hashes = {"protocol_sha256": protocol, "data_sha256": data}
        hashes |= {"ids_sha256": ids, "labels_sha256": labels}
        told = {"board": board.slug, "title": board.title, **hashes, "ranked": board.ranked}
        found.append(told | {"rows": rows})
    whole = {"schema_version": EXPORT_SCHEMA, "boards": found}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _markdown(boards: Sequence[Board]) -> str:
    parts = []
    for board in boards:
        columns = shown_columns(board, short=True)
        rows = [[_marked(cell(column, row)) for column in columns] for row in board.rows]
        numbers = [i for i, column in enumerate(columns) if column.kind != "text"]
        grid = table([_marked(column.title) for column in columns], rows, numbers)
        parts.append(f"## {_marked(board.title)}\n\n{grid}")
    return "\n".join(parts)


def _marked(text: str) -> str:
    return _MARKDOWN.sub(lambda sign: _sign(sign[0]), text)


def _sign(sign: str) -> str:
    return f"&#{ord(sign)};" if sign in "<>&@:." else f"\\{sign}"


def _latex(boards: Sequence[Board]) -> str:
    parts = []
    for board in boards:
        columns = shown_columns(board, short=True)
        layout = "".join("l" if column.kind == "text" else "r" for column in columns)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(board.title)}}}",
            rf"\label{{tab:{board.slug}}}",
            rf"\begin{{tabular}}{{{layout}}}",
            r"\toprule",
            _tex_row([column.title for column in columns]),
            r"\midrule",
            *(_tex_row([cell(column, row) for column in columns]) for row in board.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "% \\usepackage{booktabs}\n" + "\n".join(parts)


def _tex_row(cells: Sequence[str]) -> str:
    """A row; one that begins with a bracket or star would be an argument of the last one's end."""
    return "{}" + " & ".join(_tex(text) for text in cells) + r" \\"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)

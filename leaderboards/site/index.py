"""The main page: every board as a table that can be sorted and filtered, with its plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup

from leaderboards import column_values as of
from leaderboards.board_columns import COLUMNS, BoardColumn
from leaderboards.boards import Board, Row
from leaderboards.entries import Refused
from leaderboards.errors import one_line
from leaderboards.export import NOT_LOOKED, Format
from leaderboards.site.bars import small_bar
from leaderboards.site.pareto import Point, pareto
from leaderboards.site.render import render
from leaderboards.site.words import NOTHING, attacker, count, number, percent

EXPORTS: tuple[tuple[str, Format, str], ...] = (
    ("CSV", "csv", "csv"),
    ("JSON", "json", "json"),
    ("Markdown", "md", "md"),
    ("LaTeX", "latex", "tex"),
)
"""Name, format and ending of the files beside the page."""
_COLUMN = {column.key: column for column in COLUMNS}
_FACTS = ("model", "verifier")
"""Columns that the row's head and the board's facts show."""
_ALSO = (
    "training",
    "median_cosine",
    "median_top_k",
    "median_deviation_linf",
    "seconds",
    "date",
)
"""Columns that the page shows beside those for people."""
_EXPLAINED = (
    "About explanations: orange is bent, blue is proved to stay. Whether the class is right is "
    "counted apart, so more explanations may be certified than samples are classified rightly."
)
_SPARSITIES = (50, 75, 90, 95, 99)
_MOST_OPTIONS = 100
_LONGEST_TEXT = 60
_MOST_CURVES = 4
"""Runs of a board whose curves the main page shows: the first that have one."""

Pages = dict[int, str]
"""Folder of a run's page by the `id` of its entry."""
Curves = dict[int, Markup]
"""Plot of accuracy against eps, likewise."""


def index_page(
    boards: Sequence[Board],
    refused: Iterable[Refused],
    pages: Pages,
    curves: Curves,
    title: str,
) -> bytes:
    """Return the main page.

    Args:
        boards: In their order.
        refused: Folders that are no records to be trusted.
        pages: Where the runs have their pages.
        curves: Of those that have one.
        title: Of the site.
    """
    trainings = _training_numbers(boards)
    views = [_board_view(board, pages, curves, trainings) for board in boards]
    return render(
        "index.html",
        title=title,
        runs=len(pages),
        boards=views,
        filters=_filters_view(views, trainings),
        legend=_legend(boards),
        refused=sorted(_told(one) for one in refused),
    )


def _told(refused: Refused) -> tuple[str, str]:
    """Name and problem of a refused folder, without where it lies."""
    where = refused.folder
    problem = refused.problem
    for parent in (str(where.resolve().parent), str(where.parent)):
        problem = problem.replace(f"{parent}/", "")
    return one_line(where.resolve().name, 120), problem


def _columns(board: Board) -> list[BoardColumn]:
    """The columns of a board's table: those in which some row says something."""
    columns = [
        column
        for column in COLUMNS
        if column.key == "flags"
        or (
            (column.short or column.key in _ALSO)
            and column.key not in _FACTS
            and any(column.value(row) not in (None, "") for row in board.rows)
        )
    ]
    return sorted(columns, key=lambda column: column.key == "training")  # words come last


def _board_view(
    board: Board, pages: Pages, curves: Curves, trainings: dict[str, int]
) -> dict[str, Any]:
    """Return what the template says of a board.

    Args:
        board: The board.
        pages: Where the runs have their pages.
        curves: Of those that have one.
        trainings: Number of each value of the filter of that name.
    """
    columns = _columns(board)
    certified = any("certified" in row.rates for row in board.rows)
    changed = _changed(board)
    n = len(board.rows)
    about = f"{count(n)} run{'' if n == 1 else 's'}; rates in percent"
    return {
        "slug": board.slug,
        "title": board.title,
        "dataset": one_line(board.data.name, 80),
        "norm": "" if changed else board.protocol.threat.norm,
        "eps": "" if changed else f"{board.protocol.threat.eps:g}",
        "verifier": of.verifier(board.rows[0].entry.manifest) or "none",
        "facts": _facts(board),
        "note": "" if board.protocol.explanation is None else _EXPLAINED,
        "caption": (
            f"{about}, below each its exact 95% interval and its range of ranks{_alike(board)}"
        ),
        "columns": [
            {"title": "Model", "align": "text", "about": _COLUMN["model"].about,
             "sortable": True, "first": "ascending"},
            {"title": "Verdicts", "align": "bar", "about": "Certified, undecided, broken, wrong.",
             "sortable": False},
            *map(_head, columns),
        ],
        "rows": [
            {
                "page": pages[id(row.entry)],
                "name": one_line(row.entry.manifest.model.name, 80),
                "bar": small_bar(row.entry.summary.counts),
                "cells": Markup("").join(_cell(column, row) for column in columns),
                "filters": _filters(row, trainings, certified),
            }
            for row in board.rows
        ],
        "exports": [(name, f"exports/{board.slug}.{end}") for name, _, end in EXPORTS],
        "plots": _plots(board, pages) + _curves(board, curves),
    }  # fmt: skip


def _changed(board: Board) -> bool:
    """Whether it is about changes in no ball, so that norm and eps say nothing."""
    protocol = board.protocol
    return protocol.corruption is not None or protocol.transformation is not None


def _alike(board: Board) -> str:
    """What to say where every model that is ranked may have every rank."""
    ranked = [
        found == (1, board.ranked[rate]) for row in board.rows for rate, found in row.ranks.items()
    ]
    return "; no two models differ beyond chance" if ranked and all(ranked) else ""


def _facts(board: Board) -> list[tuple[str, str]]:
    """What the runs of a board share."""
    manifest, protocol = board.rows[0].entry.manifest, board.protocol
    facts = [
        ("Samples", f"{count(board.data.samples)} ({one_line(board.data.split, 40)})"),
        ("Attacker may", attacker(protocol.threat)),
        ("Attacks", of.attacks(manifest) or "none"),
        ("Proved by", of.verifier(manifest) or "nothing"),
        ("Protocol", f"{protocol.name or ''} {board.key[0][:12]}".strip()),
    ]
    if _changed(board):
        del facts[1]
    return facts


def _head(column: BoardColumn) -> dict[str, Any]:
    numeric = column.kind in ("rate", "number", "count")
    first = "descending" if column.better == "larger" or column.kind == "date" else "ascending"
    return {
        "title": column.title,
        "align": "n" if numeric else "text",
        "about": column.about,
        "sortable": True,
        "first": first,
    }


def _cell(column: BoardColumn, row: Row) -> Markup:
    value = column.value(row)
    if column.key == "flags":
        return _flags(row)
    if value is None:
        kind = "d" if column.kind in ("text", "date") else "n"
        return Markup("<td class={}>{}</td>").format(kind, NOTHING)
    if isinstance(value, datetime):
        return Markup("<td class=d>{}</td>").format(value.date().isoformat())
    if column.kind == "rate" and isinstance(value, float):
        return Markup("<td class=n>{}{}</td>").format(percent(value), _small(column, row))
    if isinstance(value, int | float):
        words = number(value) if column.kind == "number" else count(value)
        return Markup("<td class=n>{}</td>").format(words)
    return Markup("<td class=text>{}</td>").format(one_line(str(value), _LONGEST_TEXT))


def _small(column: BoardColumn, row: Row) -> Markup:
    """Interval and rank of a rate, where it has them."""

    def part(end: str) -> Any:
        own = _COLUMN.get(f"{column.key}_{end}")
        return None if own is None else own.value(row)

    lower, upper = part("lower"), part("upper")
    if lower is None:
        return Markup("")
    best, worst = part("rank_best"), part("rank_worst")
    rank = ""
    if best is not None:
        rank = f" #{best}" if best == worst else f" #{best}–{worst}"
    return Markup("<small>{}–{}{}</small>").format(percent(lower), percent(upper), rank)


def _flags(row: Row) -> Markup:
    found = row.entry.summary.flags
    if not found:
        words = NOT_LOOKED if row.entry.undiagnosed else NOTHING if found is None else "none"
        return Markup("<td class=d>{}</td>").format(words)
    names = ", ".join(flag.name for flag in found)
    told = " ".join(flag.meaning for flag in found)
    return Markup('<td class="text warn" title="{}">{}</td>').format(one_line(told, 300), names)


def _filters(row: Row, trainings: dict[str, int], certified: bool) -> str:
    """Attribute `data-r`: training, sparsity in percent, certified, unreliable."""
    training = trainings.get(of.training(row.entry.manifest) or "", -1)
    size = row.entry.manifest.model.size
    sparsity = None if size is None else of.sparsity(size)
    known = "" if sparsity is None else f"{100 * sparsity:.6g}"
    own = int(certified and "certified" in row.rates)
    return f"{training}|{known}|{own}|{int(row.entry.summary.reliable is False)}"


def _training_numbers(boards: Iterable[Board]) -> dict[str, int]:
    """Return a number for each way of training that cards speak of."""
    found = {of.training(entry.manifest) for board in boards for entry in board.entries}
    return {words: place for place, words in enumerate(sorted(w for w in found if w))}


def _filters_view(
    views: Sequence[dict[str, Any]], trainings: dict[str, int]
) -> list[dict[str, Any]]:
    """Return the filters above the boards; one that has nothing to choose from is left out."""
    shared = (
        ("dataset", "Data"), ("norm", "Norm"), ("eps", "Eps"), ("verifier", "Proved by"),
    )  # fmt: skip
    filters = []
    for key, title in shared:
        values = {view[key] for view in views if view[key]}
        order = sorted(values, key=float) if key == "eps" else sorted(values)
        if 1 < len(order) <= _MOST_OPTIONS:
            filters.append({"key": key, "title": title, "options": [(v, v) for v in order]})
    if 1 < len(trainings) <= _MOST_OPTIONS:
        options = [(str(place), one_line(words, 60)) for words, place in trainings.items()]
        filters.append({"key": "training", "title": "Training", "options": options})
    sparse = [(str(share), f"{share}% and more") for share in _SPARSITIES]
    filters.append({"key": "sparsity", "title": "Sparsity", "options": sparse})
    yes_no = [("1", "yes"), ("0", "no")]
    for key, title in (("certified", "Certified"), ("unreliable", "Unreliable")):
        filters.append({"key": key, "title": title, "options": yes_no})
    return filters


def _legend(boards: Iterable[Board]) -> list[BoardColumn]:
    """Return the columns that some board shows, for their explanations."""
    shown = {column.key for board in boards for column in _columns(board)}
    return [column for column in COLUMNS if column.key in shown and column.key != "flags"]


def _plots(board: Board, pages: Pages) -> list[tuple[str, Markup]]:
    """The plots of a board that have something to show."""
    explained = board.protocol.explanation is not None
    points: dict[str, list[Point]] = {"robust": [], "sparse": [], "explained": []}
    for row in board.rows:
        rates = {name: 100 * rate.value for name, rate in row.rates.items()}
        name = one_line(row.entry.manifest.model.name, 80)
        href = f"runs/{pages[id(row.entry)]}/index.html"
        clean, robust = rates.get("clean"), rates.get("robust")
        certified, size = rates.get("certified"), row.entry.manifest.model.size
        sparsity = None if size is None else of.sparsity(size)
        if not explained and clean is not None and robust is not None:
            points["robust"].append(Point(clean, robust, name, href))
        if sparsity is not None and certified is not None:
            points["sparse"].append(Point(100 * sparsity, certified, name, href))
        if explained and clean is not None and certified is not None:
            points["explained"].append(Point(clean, certified, name, href))
    if len({point.x for point in points["sparse"]}) < 2:
        points["sparse"] = []
    told = {
        "robust": ("Clean against empirical robust accuracy", "clean, %", "robust, %"),
        "sparse": ("Sparsity against certified accuracy", "sparsity, %", "certified, %"),
        "explained": ("Accuracy against certified explanations", "clean, %", "certified stable, %"),
    }
    plots = [(title, pareto(points[key], title, x, y)) for key, (title, x, y) in told.items()]
    front = "; the dashed line is the front of those that no other beats in both."
    return [(f"{title}{front}", plot) for title, plot in plots if plot]


def _curves(board: Board, curves: Curves) -> list[tuple[str, Markup]]:
    entries = [entry for entry in board.entries if id(entry) in curves][:_MOST_CURVES]
    told = (
        "accuracy against eps; blue is proved, beyond the line it is broken, between is not known"
    )
    return [
        (f"{one_line(entry.manifest.model.name, 80)}: {told}.", curves[id(entry)])
        for entry in entries
    ]

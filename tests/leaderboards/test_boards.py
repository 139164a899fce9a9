"""Boards: what is compared with what, in which order, with which ranks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from record_makers import a_frame, a_manifest, a_row  # type: ignore[import-not-found]
from run_makers import write_run

from leaderboards.board_columns import COLUMNS, shown_columns
from leaderboards.boards import RATES, boards_of
from leaderboards.column_values import training
from leaderboards.entries import find_runs, read_entries, read_entry
from leaderboards.store import RunStore


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("boards")
    for name, wrong, broken, certified in (
        ("weak", 10, 30, 20),
        ("fair", 5, 5, 80),
        ("fair-too", 5, 5, 80),
        ("strong", 0, 0, 100),
    ):
        write_run(
            root / name,
            set(range(wrong)),
            set(range(wrong, wrong + broken)),
            set(range(100 - certified, 100)),
            samples=100,
            name=name,
            run_id=name,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
        )
    write_run(root / "other-samples", certified={1}, samples=9, run_id="other-samples")
    entries, refused = read_entries(find_runs([root]))
    assert not refused
    return entries


def test_boards_do_not_depend_on_the_order_of_runs(runs):
    boards = boards_of(runs)
    assert boards_of(reversed([*runs, *runs])) == boards
    assert [board.title for board in boards] == [
        "mini, Linf 0.1, 100 samples, pgd + crown",
        "mini, Linf 0.1, 9 samples, pgd + crown",
    ]
    assert [[row.entry.manifest.run_id for row in board.rows] for board in boards] == [
        ["strong", "fair", "fair-too", "weak"],
        ["other-samples"],
    ]
    assert len({board.slug for board in boards}) == 2
    assert all(board.slug.startswith("board-") and len(board.slug) == 18 for board in boards)


def test_ranks_are_by_rate(runs):
    board = boards_of(runs)[0]
    assert board.ranked == dict.fromkeys(RATES, 4)
    assert [row.ranks["certified"] for row in board.rows] == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert [row.ranks["clean"] for row in board.rows] == [(1, 3), (1, 4), (1, 4), (2, 4)]
    assert [row.rates["robust"].value for row in board.rows] == [1.0, 0.9, 0.9, 0.6]


def test_what_cannot_be_trusted_has_no_rank_and_does_not_count(runs):
    strong, fair = (next(e for e in runs if e.manifest.run_id == n) for n in ("strong", "fair"))
    rest = [e for e in runs if e not in (strong, fair)]
    unreliable = replace(strong, summary=strong.summary.model_copy(update={"reliable": False}))
    hasty = replace(fair, manifest=fair.manifest.model_copy(update={"reproducible": False}))
    board = boards_of([unreliable, hasty, *rest])[0]
    assert board.ranked == {"clean": 3, "robust": 2, "certified": 3}
    assert {row.not_ranked for row in board.rows} == {None, "not reproducible"}
    ranks = {row.entry.manifest.run_id: row.ranks for row in board.rows}
    assert ranks["fair"] == {}
    assert ranks["strong"] == {"clean": (1, 2), "certified": (1, 1)}
    assert ranks["weak"] == {"clean": (2, 3), "robust": (2, 2), "certified": (3, 3)}


def test_boards_of_one_title_are_told_apart(runs):
    first = runs[0].manifest
    data = first.data.model_copy(update={"sha256": "e" * 64})
    other = replace(runs[0], manifest=first.model_copy(update={"data": data}))
    a, b, _ = boards_of([*runs, other])
    assert a.title != b.title
    assert a.title == f"mini, Linf 0.1, 100 samples, pgd + crown ({a.slug[6:]})"


def test_runs_of_other_labels_or_class_names_share_no_board(tmp_path):
    found = {}
    for name, label, classes in (
        ("a", 1, "xyz"),
        ("b", 1, "xyz"),
        ("c", 2, "xyz"),
        ("d", 1, "xzy"),
    ):
        manifest = a_manifest((), ids="0-2", run_id=name)
        data = manifest.data.model_copy(update={"classes": tuple(classes)})
        store = RunStore.create(tmp_path / name, manifest.model_copy(update={"data": data}))
        rows = [a_row(i, label=label, prediction=label) for i in (2, 0, 1)]
        store.write_shard("clean", a_frame(*rows))
        store.write_summary()
        found[name] = read_entry(tmp_path / name)
    keys = {name: entry.board for name, entry in found.items()}
    assert keys["a"] == keys["b"]
    assert len(set(keys.values())) == 3
    boards = boards_of(found.values())
    assert len({board.title for board in boards}) == len(boards) == 3
    assert all(
        board.title.endswith(f"({board.slug[6:]}, labels or class names differ)")
        for board in boards
    )


def test_of_the_runs_of_a_model_only_the_latest_counts(runs):
    strong, fair, weak = (
        next(e for e in runs if e.manifest.run_id == n) for n in ("strong", "fair", "weak")
    )

    def again(entry, days, run_id, **summary):
        created = entry.manifest.created + timedelta(days=days)
        manifest = entry.manifest.model_copy(update={"created": created, "run_id": run_id})
        return replace(entry, manifest=manifest, summary=entry.summary.model_copy(update=summary))

    copies = [again(strong, day, f"strong-{day}") for day in (1, 2, 3)]
    copies += [again(strong, 3, "strong-2b"), again(strong, 4, "open", complete=False)]
    board = boards_of([strong, *copies, fair, weak])[0]
    assert boards_of([weak, fair, *reversed(copies), strong])[0] == board
    assert board.ranked == dict.fromkeys(RATES, 3)
    told = {row.entry.manifest.run_id: row for row in board.rows}
    assert told.pop("open").not_ranked == "not complete"
    ranks = {name: row.ranks.get("certified") for name, row in told.items() if row.ranks}
    assert ranks == {"strong-3": (1, 1), "fair": (2, 2), "weak": (3, 3)}
    repeats = {name for name, row in told.items() if row.not_ranked == "repeat of strong-3"}
    assert repeats == {"strong", "strong-1", "strong-2", "strong-2b"}
    (column,) = (c for c in COLUMNS if c.key == "not_ranked")
    assert column.value(told["strong"]) == "repeat of strong-3"


def test_one_model_alone_has_no_rank(runs):
    board = boards_of(runs)[1]
    assert board.rows[0].ranks == {}
    assert board.rows[0].rates
    assert board.ranked == dict.fromkeys(RATES, 0)


def test_columns_hold_what_they_say(runs):
    kinds = {
        "text": str,
        "rate": float,
        "number": float,
        "count": int,
        "flag": bool,
        "date": datetime,
    }
    board = boards_of(runs)[0]
    keys = [column.key for column in COLUMNS]
    assert len(set(keys)) == len(keys)
    for column in COLUMNS:
        assert column.of is None or column.of in keys
        assert column.about.endswith(".")
        for row in board.rows:
            value = column.value(row)
            assert value is None or type(value) is kinds[column.kind], column.key
    weak = {c.key: c.value(board.rows[-1]) for c in COLUMNS}
    told = ("model", "clean", "robust", "certified", "gap", "certified_rank_best", "verifier", "n")
    assert [weak[key] for key in told] == ["weak", 0.9, 0.6, 0.2, 0.4, 4, "crown", 100]
    assert weak["bent"] is None
    assert weak["sparsity"] is None
    assert weak["reliable"] is None
    shown = [column.key for column in shown_columns(board)]
    assert "bent" not in shown
    assert [c.key for c in shown_columns(board, short=True)] == [
        k for k in shown if k in ("model", "clean", "robust", "certified", "verifier", "gap")
        or k in ("parameters", "seconds", "flags")
    ]  # fmt: skip
    assert pd.isna(weak["flags"])


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (None, None),
        ({"recipe": "net-7"}, "net-7"),
        ({"recipe": "net-7", "method": "trades"}, "trades"),
        (
            {"recipe": "net-7", "method": "ibp", "threat": {"norm": "linf", "eps": 0.1}},
            "ibp, against linf 0.1",
        ),
    ],
)
def test_training_is_the_method_and_of_older_cards_the_recipe(card, told):
    manifest = a_manifest()
    model = manifest.model.model_copy(update={"card": card})
    assert training(manifest.model_copy(update={"model": model})) == told


def test_document_has_the_columns_as_they_are():
    text = (Path(__file__).parents[2] / "docs" / "leaderboards.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| `")]
    own = [column for column in COLUMNS if column.of is None]
    assert table == [f"| `{c.key}` | {c.kind} | {c.about} |" for c in own]
    ranked = {c.of for c in COLUMNS if c.key.endswith("_rank_best")}
    assert ranked == {"clean", "robust", "certified", "unbent", "explained"}

"""Boards as text: the same bytes wherever runs lie, and nothing of strangers does anything."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from run_makers import write_run  # type: ignore[import-not-found]

import leaderboards
from leaderboards.board_columns import COLUMNS
from leaderboards.boards import boards_of
from leaderboards.entries import find_runs, read_entries, read_entry
from leaderboards.errors import RecordError
from leaderboards.export import export

FORMATS = ("csv", "json", "md", "latex")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_run(folder / "a", {0}, {1}, {2, 3}, name="first", run_id="a", sha256="1" * 64)
    write_run(folder / "b", set(), {1, 4}, {2}, name="second", run_id="b", sha256="2" * 64)
    write_run(folder / "c", certified={1}, samples=3, name="third", run_id="c")
    return folder


@pytest.fixture(scope="module")
def boards(root):
    return boards_of(read_entries(find_runs([root]))[0])


def named(board, name):
    """The board with a first row of a model that a stranger named."""
    row = board.rows[0]
    manifest = row.entry.manifest
    model = manifest.model.model_copy(update={"name": name})
    entry = replace(row.entry, manifest=manifest.model_copy(update={"model": model}))
    return replace(board, rows=(replace(row, entry=entry), *board.rows[1:]))


def test_bytes_depend_on_records_alone(root, boards, tmp_path):
    for name in ("c", "a", "b"):
        shutil.copytree(root / name, tmp_path / f"elsewhere-{name}")
    moved = [read_entry(tmp_path / f"elsewhere-{name}") for name in ("b", "c", "a")]
    again = boards_of(moved)
    assert [export(again, form) for form in FORMATS] == [export(boards, f) for f in FORMATS]


def test_csv_and_json_hold_every_column(boards):
    rows = list(csv.DictReader(io.StringIO(export(boards, "csv"))))
    found = json.loads(export(boards, "json"))
    assert [row["model"] for row in rows] == ["first", "second", "third"]
    assert list(rows[0]) == ["board", "board_title", *(column.key for column in COLUMNS)]
    assert rows[0]["certified"] == "0.2"
    assert rows[0]["bent"] == ""
    assert rows[0]["complete"] == "true"
    first = found["boards"][0]
    assert first["rows"][0]["certified"] == 0.2
    assert first["rows"][0]["bent"] is None
    assert first["rows"][0]["certified_rank_worst"] == 2
    assert first["rows"][0]["date"] == "2026-01-02T03:04:05Z"
    assert first["board"] == rows[0]["board"] == boards[0].slug
    assert first["ranked"] == {"clean": 2, "robust": 2, "certified": 2}


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_name_is_a_formula(boards, name):
    text = export([named(boards[0], name)], "csv")
    cell = next(csv.DictReader(io.StringIO(text)))["model"]
    assert cell[0] not in "=+-@\t\r"
    assert cell.endswith(name.strip()[1:])


def test_markdown_shows_names_as_they_are(boards):
    name = "<b>a|b</b> [x](y) `c` *d* \n| e @f http://g www.h a-b"
    text = export([named(boards[0], name)], "md")
    header, _, row = text.splitlines()[2:5]
    assert len(text.splitlines()) == 6
    assert row.count(" | ") == header.count(" | ")
    assert r"| &#60;b&#62;a\|b&#60;/b&#62; \[x\](y) \`c\` \*d\* \| e &#64;f http&#58;//g" in row
    assert "www&#46;h a-b |" in row
    assert r"20.0% \[2.5, 55.6\] #1-2" in row


def test_tables_say_where_nobody_looked_for_flags(boards):
    header, _, *rows = export(boards[:1], "md").splitlines()[2:]
    assert "| Red flags |" in header
    assert all("| not looked for |" in row for row in rows if row)


def test_latex_escapes_and_has_rules(boards):
    text = export([named(boards[0], r"a_b & 50% $x$ #1 {y} \input{z} ~^")], "latex")
    assert r"a\_b \& 50\% \$x\$ \#1 \{y\} \textbackslash{}input\{z\} \textasciitilde{}" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1
    after = export([named(boards[0], "[2cm] a")], "latex").split(r"\midrule" + "\n")[1]
    assert after.startswith("{}[2cm] a & ")


def test_load_gives_a_row_for_each_run(root):
    frame = leaderboards.load(root)
    assert list(frame.model) == ["first", "second", "third"]
    assert frame.certified.tolist() == pytest.approx([0.2, 0.1, 1 / 3])
    assert frame.certified_rank_best.dtype == "Int64"
    assert frame.reproducible.dtype == "boolean"
    assert frame.bent.isna().all()
    assert str(frame.date.dtype) == "datetime64[us, UTC]"
    assert frame.board.nunique() == 2


def test_load_samples_gives_a_row_for_each_sample(root):
    frame = leaderboards.load_samples([root / "a", root / "c"])
    assert len(frame) == 13
    first = frame[frame.run_id == "a"].set_index("sample_id")
    assert first.verdict[:4].tolist() == ["wrong", "broken", "certified", "certified"]
    assert first.settled_by[:4].tolist() == ["clean", "pgd", "crown", "crown"]
    assert pd.isna(first.settled_by[9])
    assert (int(first.clean.sum()), int(first.robust.sum()), int(first.certified.sum())) == (
        9,
        8,
        2,
    )


def test_load_leaves_out_what_it_cannot_trust_and_says_so(root, tmp_path):
    shutil.copytree(root / "a", tmp_path / "good")
    shutil.copytree(root / "b", tmp_path / "bad")
    (tmp_path / "bad" / "summary.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"bad is left out: .*summary\.json"):
        assert len(leaderboards.load(tmp_path)) == 1
    shutil.rmtree(tmp_path / "good")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(RecordError, match="none of 1"):
        leaderboards.load(str(tmp_path))

"""`robust-report`: files, wrong usage, and none of torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "leaderboards"))

from hostile_records import a_record, set_in


def test_several_files_at_once(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    a_record(tmp_path / "run")
    out = tmp_path / "new"
    ended = command(
        "robust-report", tmp_path / "run", "--out", out / "a.html", "--out", out / "a.md"
    )
    assert (ended.code, ended.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["a.html", "a.md"]
    assert f"report: {out / 'a.html'}" in ended.out


@pytest.mark.parametrize("name", ["a.docx", "a", "a.pdf.gz"])
def test_other_formats_are_wrong_usage(command, tmp_path, name):
    ended = command("robust-report", tmp_path, "--out", tmp_path / name)
    assert (ended.code, len(ended.lines)) == (2, 1)
    assert ".html, .pdf or .md" in ended.err


def test_wrong_usage(command, tmp_path):
    assert command("robust-report", "--out", "a.md").code == 2
    assert command("robust-report", tmp_path).code == 2
    missing = command("robust-report", tmp_path / "none", "--out", tmp_path / "a.md")
    assert (missing.code, len(missing.lines)) == (6, 1)


def test_nothing_is_written_of_a_run_that_lies(command, tmp_path):
    a_record(tmp_path / "run")
    set_in("summary.json", "counts.certified", 9)(tmp_path / "run")
    ended = command("robust-report", tmp_path / "run", "--out", tmp_path / "a.md")
    assert (ended.code, len(ended.lines)) == (6, 1)
    assert not (tmp_path / "a.md").exists()

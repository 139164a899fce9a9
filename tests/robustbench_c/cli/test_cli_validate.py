"""`robust-leaderboard validate`: findings, exit codes, and none of torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from robustbench_c.cli import validate

sys.path.insert(0, str(Path(__file__).parents[2] / "leaderboards"))

from hostile_records import a_record, set_in


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch):
    """Keep the limit of memory off the process of the tests."""
    monkeypatch.setattr(validate, "_limit_memory", lambda: None)


def test_a_valid_record(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    a_record(tmp_path / "run")
    ended = command("robust-leaderboard", "validate", tmp_path / "run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == f"{tmp_path / 'run'}: valid"
    assert "robust-runs verify RUN --prove" in ended.out


def test_one_bad_record_of_two_fails_and_hides_no_other(command, tmp_path):
    for name in ("bad", "good"):
        a_record(tmp_path / name)
    set_in("summary.json", "counts.certified", 9)(tmp_path / "bad")
    ended = command("robust-leaderboard", "validate", tmp_path / "bad", tmp_path / "good")
    assert ended.code == 7
    assert len(ended.lines) == 1
    assert "1 of 2 records not to be trusted" in ended.err
    assert "summary.json: counts: add up to 14" in ended.out
    assert f"{tmp_path / 'good'}: valid" in ended.out


def test_as_json(command, tmp_path):
    a_record(tmp_path / "run")
    set_in("manifest.json", "run_id", "<script>")(tmp_path / "run")
    ended = command("robust-leaderboard", "validate", tmp_path / "run", "--json")
    (found,) = json.loads(ended.out)
    assert (ended.code, found["valid"], found["errors"], found["run_id"]) == (7, False, 1, None)
    assert found["findings"][0]["place"] == "manifest.json: run_id"
    assert set(found["findings"][0]) == {"severity", "place", "problem", "advice"}


def test_what_is_not_there(command, tmp_path):
    ended = command("robust-leaderboard", "validate", tmp_path / "none")
    assert (ended.code, len(ended.lines)) == (6, 1)
    assert command("robust-leaderboard", "validate").code == 2
    assert command("robust-leaderboard").code == 2

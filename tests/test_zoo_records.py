"""The records that the site of the shipped models is built of."""

from __future__ import annotations

from pathlib import Path

import pytest

from leaderboards.entries import find_runs, read_entries
from robustbench_c import zoo
from robustbench_c.evaluation.subject import model_info

RECORDS = Path(__file__).parents[1] / "records"


@pytest.fixture(scope="module")
def entries():
    found, refused = read_entries(find_runs([RECORDS]))
    assert refused == []
    return found


def test_every_shipped_model_has_a_complete_record(entries):
    assert {entry.manifest.model.name for entry in entries} == set(zoo.names())
    assert all(entry.summary.complete for entry in entries)


def test_they_are_about_the_weights_that_are_shipped(entries):
    shipped = {name: model_info(zoo.load(name)).sha256 for name in zoo.names()}
    assert {entry.manifest.model.sha256 for entry in entries} == set(shipped.values())
    for entry in entries:
        assert entry.manifest.model.sha256 == shipped[entry.manifest.model.name]


def test_models_are_compared_where_they_can_be(entries):
    runs = [len([e for e in entries if e.board == key]) for key in {e.board for e in entries}]
    assert max(runs) >= 14
    assert min(runs) >= 1
    assert sum(runs) == len(entries) > 40

"""Radii on record have to follow from the votes, whoever wrote them."""

from __future__ import annotations

import pytest
from record_makers import a_frame, a_manifest, a_row

from leaderboards.manifest import StepInfo
from leaderboards.store import RunStore

SETTINGS = {"sigma": 0.25, "n0": 10, "n": 1000, "alpha": 0.001}


def problems(folder, settings, **row) -> list[str]:
    step = StepInfo(name="smoothing", kind="certificate", parameters=settings)
    store = RunStore.create(folder, a_manifest((step,), ids="0"))
    store.write_shard("clean", a_frame(a_row(0)))
    smoothed = {"votes": 950, "radius": 0.35, "forwards": 1000, "margin": None}
    store.write_shard("smoothing", a_frame(a_row(0, "certified", **(smoothed | row))))
    store.write_summary()
    return store.verify_bytes()


def test_radius_follows_from_the_votes(tmp_path):
    assert problems(tmp_path / "a", SETTINGS) == []  # 950 of 1000 prove 0.3583
    (line,) = problems(tmp_path / "b", SETTINGS, radius=0.36)
    assert line == "step smoothing, sample 0: its radius is more than its votes prove"
    assert problems(tmp_path / "c", SETTINGS, votes=None) != []


@pytest.mark.parametrize(
    "change", [{"n": 10**400}, {"n": 0}, {"n": "many"}, {"sigma": None}, {"alpha": 2.0}]
)
def test_strange_settings_prove_nothing_and_break_nothing(tmp_path, change):
    (line, *_) = problems(tmp_path / "a", SETTINGS | change)
    assert "radius" in line

"""Two runs on the same samples, compared."""

from __future__ import annotations

import pytest
from record_makers import PGD, a_manifest  # type: ignore[import-not-found]
from run_makers import STEPS, a_run  # type: ignore[import-not-found]

from leaderboards.errors import RecordError
from leaderboards.pairs import compare
from leaderboards.statistics import mcnemar_exact
from leaderboards.store import RunStore


def test_pairs_count_who_is_right_where(tmp_path):
    first = a_run(tmp_path / "a", {0}, {1}, {2, 3, 4, 5, 6, 7, 8})
    second = a_run(tmp_path / "b", set(), {0, 1, 2}, {3})
    samples, pairs = compare(first, second)
    assert samples == 10
    found = {p.rate: (p.first, p.second, p.only_first, p.only_second) for p in pairs}
    assert found == {"clean": (9, 10, 0, 1), "robust": (8, 7, 1, 0), "certified": (7, 1, 6, 0)}
    assert pairs[2].p == mcnemar_exact(6, 0) == pytest.approx(2 / 64)


def test_other_samples_protocols_and_halves_do_not_compare(tmp_path):
    whole = a_run(tmp_path / "a", {0}, {1}, {2})
    other = RunStore.create(tmp_path / "b", a_manifest(STEPS, ids="0-8"))
    with pytest.raises(RecordError, match="same samples"):
        compare(whole, other)
    attack = RunStore.create(tmp_path / "c", a_manifest((PGD,)))
    with pytest.raises(RecordError, match="same protocol"):
        compare(whole, attack)
    half = RunStore.create(tmp_path / "d", a_manifest(STEPS))
    with pytest.raises(RecordError, match="not complete"):
        compare(whole, half)

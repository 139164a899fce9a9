"""Two runs on the same samples, compared."""

from __future__ import annotations

import pytest
from record_makers import CROWN, PGD, a_frame, a_manifest, a_row  # type: ignore[import-not-found]

from leaderboards.errors import RecordError
from leaderboards.pairs import compare
from leaderboards.statistics import mcnemar_exact
from leaderboards.store import RunStore

STEPS = (PGD, CROWN)


def a_run(folder, wrong, broken, certified, **changes):
    store = RunStore.create(folder, a_manifest(STEPS, **changes))
    ids = range(10)
    right = [i for i in ids if i not in wrong]
    left = [i for i in right if i not in broken]
    store.write_shard("clean", a_frame(*[a_row(i, "wrong" if i in wrong else None) for i in ids]))
    store.write_shard("pgd", a_frame(*[a_row(i, "broken" if i in broken else None) for i in right]))
    rows = [
        a_row(
            i,
            "certified" if i in certified else None,
            prediction=None,
            margin=None,
            method="crown",
            bound=0.5 if i in certified else -0.5,
            detail=None if i in certified else "unknown",
            work=1,
        )
        for i in left
    ]
    store.write_shard("crown", a_frame(*rows))
    return store


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

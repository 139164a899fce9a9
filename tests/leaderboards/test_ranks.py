"""Ranges of ranks, against a loop over pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboards.ranks import ALPHA, rank_ranges
from leaderboards.statistics import holm, mcnemar_counts, mcnemar_exact


def by_pairs(right: np.ndarray) -> list[list[int]]:
    models = len(right)
    pairs = list(combinations(range(models), 2))
    only = [
        (int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())) for i, j in pairs
    ]
    adjusted = holm([mcnemar_exact(a, b) for a, b in only])
    better, worse = [0] * models, [0] * models
    for (i, j), (a, b), p in zip(pairs, only, adjusted, strict=True):
        if p <= 0.05:
            winner, loser = (i, j) if a > b else (j, i)
            better[loser] += 1
            worse[winner] += 1
    return [[1 + x, models - y] for x, y in zip(better, worse, strict=True)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    models=st.integers(1, 9),
    samples=st.integers(1, 120),
    spread=st.floats(0, 1),
)
def test_ranges_are_those_of_a_loop_over_pairs(seed, models, samples, spread):
    rng = np.random.default_rng(seed)
    skill = 0.5 + spread * (rng.random(models) - 0.5)
    right = rng.random((models, samples)) < skill[:, None]
    found = rank_ranges(right)
    assert found.tolist() == by_pairs(right)
    order = rng.permutation(models)
    assert rank_ranges(right[order][:, rng.permutation(samples)]).tolist() == found[order].tolist()


def test_identical_models_share_every_rank():
    right = np.tile(np.random.default_rng(0).random(300) < 0.7, (6, 1))
    assert rank_ranges(right).tolist() == [[1, 6]] * 6


def test_clear_differences_are_ranks():
    right = np.arange(400) < np.array([[100], [390], [250]])
    assert rank_ranges(right).tolist() == [[3, 3], [1, 1], [2, 2]]
    assert ALPHA == 0.05


def test_many_counts_at_once():
    a, b = np.array([[0, 3], [10, 0]]), np.array([[0, 9], [0, 7]])
    each = [
        [mcnemar_exact(x, y) for x, y in zip(*rows, strict=True)]
        for rows in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert mcnemar_counts(a, b).tolist() == each
    with pytest.raises(ValueError, match="at least 0: 3, -1"):
        mcnemar_counts(np.array([0, 3]), np.array([1, -1]))

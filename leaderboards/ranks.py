"""Ranks as ranges: whom a model beats, and who beats it, beyond chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from leaderboards.statistics import holm, mcnemar_counts

ALPHA = 0.05
"""Family-wise error rate over all pairs of models of a board and rate."""


def rank_ranges(right: npt.NDArray[np.bool_], alpha: float = ALPHA) -> npt.NDArray[np.int64]:
    """Return the range of ranks that models may have (McNemar's exact test, Holm's correction).

    Every pair is tested on the shared samples, and the p-values of all pairs are corrected
    together: with probability 1 - alpha at least, no two equally good models are called different.

    Args:
        right: bool (models, samples): who is right where.
        alpha: Family-wise error rate.

    Returns:
        int64 (models, 2): best and worst rank, from 1: 1 + the number of models that are
        significantly better, and the number of models less those that are significantly worse.
    """
    models = len(right)
    shares = right.astype(np.float64)
    counts = shares.sum(axis=1)
    only = counts[:, None] - shares @ shares.T  # [i, j]: samples that only i gets right, of the two
    first, second = np.triu_indices(models, 1)
    wins, losses = only[first, second], only[second, first]
    differs = holm(mcnemar_counts(wins, losses)) <= alpha
    better, worse = np.zeros(models, np.int64), np.zeros(models, np.int64)
    for above, below, won in (
        (first, second, differs & (wins > losses)),
        (second, first, differs & (wins < losses)),
    ):
        better += np.bincount(below[won], minlength=models)
        worse += np.bincount(above[won], minlength=models)
    return np.stack([1 + better, models - worse], axis=1)

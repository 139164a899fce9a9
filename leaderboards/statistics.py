"""Exact statistics of counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64] | Floats


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided confidence interval of a rate (Clopper and Pearson 1934).

    Args:
        k: Successes, 0 to n.
        n: Trials; of none, the interval is (0, 1).
        confidence: Coverage probability, at least reached for every true rate; in (0, 1).

    Raises:
        ValueError: An argument out of its range.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k has to be 0 to n: k={k}, n={n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence has to be in (0, 1): {confidence}")
    tail = (1 - confidence) / 2
    lower = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    upper = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return lower, upper


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value that two models are equally often right (McNemar, exact).

    Args:
        only_a: Samples that only the first model gets right.
        only_b: Samples that only the second gets right.

    Returns:
        Twice the smaller tail of Binomial(only_a + only_b, 1/2), at most 1.

    Raises:
        ValueError: A negative count.
    """
    return float(mcnemar_counts(np.array([only_a]), np.array([only_b]))[0])


def mcnemar_counts(only_a: Numbers, only_b: Numbers) -> Floats:
    """Return `mcnemar_exact` of many pairs at once: arrays of whole numbers of one shape.

    Raises:
        ValueError: A negative count.
    """
    if (bad := (only_a < 0) | (only_b < 0)).any():
        a, b = only_a[bad][0], only_b[bad][0]
        raise ValueError(f"counts have to be at least 0: {a:g}, {b:g}")
    least, both = np.minimum(only_a, only_b).astype(np.int64), (only_a + only_b).astype(np.int64)
    width = int(both.max(initial=0)) + 1
    pairs, place = np.unique(least * width + both, return_inverse=True)  # few differ; bdtr is slow
    tails = bdtr((pairs // width).astype(np.float64), pairs % width, 0.5)
    return np.minimum(1.0, 2.0 * np.asarray(tails, dtype=np.float64))[place]


def mcnemar_worse(only_before: int, only_after: int) -> float:
    """Return the one-sided p-value that a model did not get worse (McNemar, exact).

    Where samples are at most as often lost as gained, those that differ are lost with probability
    1/2 at most, so this is below any alpha with probability alpha at most, for every number of
    samples.

    Args:
        only_before: Samples that only the model before gets right.
        only_after: Samples that only the model after gets right.

    Returns:
        P(Binomial(only_before + only_after, 1/2) >= only_before).

    Raises:
        ValueError: A negative count.
    """
    if only_before < 0 or only_after < 0:
        raise ValueError(f"counts have to be at least 0: {only_before}, {only_after}")
    # by symmetry the probability of at most `only_after`
    return float(bdtr(only_after, only_before + only_after, 0.5))


def holm(pvalues: Sequence[float] | Floats) -> Floats:
    """Return p-values adjusted for their number (Holm 1979), in the order given.

    Rejecting those at most alpha keeps the family-wise error rate at alpha.

    Raises:
        ValueError: A p-value outside of [0, 1], NaN included.
    """
    p = np.asarray(pvalues, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values have to be in [0, 1]")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted

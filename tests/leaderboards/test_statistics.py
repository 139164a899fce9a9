from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards.statistics import clopper_pearson, holm, mcnemar_exact


@pytest.mark.parametrize(
    ("k", "n", "lower", "upper"),
    [  # the closed forms at the ends, and values of scipy.stats.binomtest
        (0, 10, 0.0, 1 - 0.025**0.1),
        (10, 10, 0.025**0.1, 1.0),
        (0, 0, 0.0, 1.0),
        (7, 10, 0.3475471, 0.9332605),
        (940, 1000, 0.9234395, 0.9539050),
    ],
)
def test_clopper_pearson_equals_known_values(k: int, n: int, lower: float, upper: float) -> None:
    assert clopper_pearson(k, n) == pytest.approx((lower, upper), abs=1e-6)


def _binomial(k: int, n: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@given(
    n=st.integers(1, 40),
    p=st.floats(0.0, 1.0),
    confidence=st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_coverage_is_never_below_the_confidence(n: int, p: float, confidence: float) -> None:
    intervals = [clopper_pearson(k, n, confidence) for k in range(n + 1)]
    covered = sum(_binomial(k, n, p) for k, (lo, hi) in enumerate(intervals) if lo <= p <= hi)
    assert covered >= confidence - 1e-9
    assert all(lo <= k / n <= hi for k, (lo, hi) in enumerate(intervals))


@given(n=st.integers(1, 500), data=st.data())
def test_interval_mirrors_when_success_and_failure_swap(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    lower, upper = clopper_pearson(k, n)
    assert clopper_pearson(n - k, n) == pytest.approx((1 - upper, 1 - lower), abs=1e-9)


@pytest.mark.parametrize(("k", "n", "c"), [(-1, 5, 0.9), (6, 5, 0.9), (1, 5, 0.0), (1, 5, 1.0)])
def test_clopper_pearson_refuses(k: int, n: int, c: float) -> None:
    with pytest.raises(ValueError, match="has to be"):
        clopper_pearson(k, n, c)


@given(a=st.integers(0, 60), b=st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_at_one_half(a: int, b: int) -> None:
    n = a + b
    exact = sum(math.comb(n, i) for i in range(n + 1) if abs(2 * i - n) >= abs(a - b)) / 2**n
    assert mcnemar_exact(a, b) == pytest.approx(exact, rel=1e-9)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_mcnemar_edges() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 10) == pytest.approx(2 / 1024)
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar_exact(-1, 2)


def test_holm_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).size == 0
    with pytest.raises(ValueError, match="p-values"):
        holm([0.5, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, new in zip(p, adjusted, strict=True):
        assert raw <= new <= min(1.0, raw * len(p)) or new == raw
    by_raw = [float(new) for _, new in sorted(zip(p, adjusted, strict=True))]
    assert by_raw == sorted(by_raw)

"""Bounds, radii and predictions from votes, against exact probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from certify import smoothing
from certify.smoothing import (
    ABSTAIN,
    SmoothingConfig,
    SmoothingError,
    draws_needed,
    probability_lower,
)


@pytest.mark.parametrize("n", [10, 100, 10_000, 10**6])
@pytest.mark.parametrize("alpha", [0.05, 0.001, 1e-9])
def test_bound_is_that_of_clopper_and_pearson_rounded_down(n, alpha):
    votes = np.unique(np.linspace(1, n, 60).astype(np.int64))
    bound = probability_lower(votes, n, alpha)
    reached = special.betainc(votes, n - votes + 1, bound)  # P[at least so many votes]
    assert (reached <= alpha).all()
    assert (reached >= alpha * (1 - 1e-5)).all()
    assert bound[-1] == pytest.approx(alpha ** (1 / n), rel=1e-11)
    assert bound[-1] < 1
    k = int(votes[len(votes) // 2])
    known = stats.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
    assert bound[len(votes) // 2] == pytest.approx(known, rel=1e-8)
    assert probability_lower(np.array([0]), n, alpha)[0] == 0


def misses(config: SmoothingConfig, p: float) -> float:
    """Exact probability that the radius is larger than the true one, sigma * quantile(p)."""
    votes = np.arange(config.n + 1)
    too_large = config.radius(votes) > config.sigma * special.ndtri(p)  # NaN is not larger
    return float(stats.binom.pmf(votes, config.n, p)[too_large].sum())


@pytest.mark.parametrize("n", [20, 150])
@pytest.mark.parametrize("p", [0.3, 0.4999, 0.5, 0.6, 0.9, 0.99])
def test_radius_is_too_large_with_probability_alpha_at_most(n, p):
    assert misses(SmoothingConfig(0.5, n=n, alpha=0.05), p) <= 0.05


def test_a_bound_of_the_plain_share_would_be_noticed(monkeypatch):
    monkeypatch.setattr(smoothing, "probability_lower", lambda k, n, alpha: k / (n + 1))
    assert misses(SmoothingConfig(0.5, n=150, alpha=0.05), 0.9) > 0.05


def test_radius_is_never_infinite_and_never_of_a_minority():
    config = SmoothingConfig(0.25)
    radius = config.radius(np.arange(config.n + 1))
    assert np.isfinite(radius[-1])
    assert radius[-1] == config.largest_radius
    assert np.isnan(radius[: config.n // 2 + 1]).all()
    given = radius[~np.isnan(radius)]
    assert given.size > 4000
    assert (given > 0).all()
    assert (np.diff(given) > 0).all()


def test_prediction_is_that_of_the_exact_test():
    config = SmoothingConfig(0.25, alpha=0.01)
    counts = np.random.default_rng(0).integers(0, 60, (300, 4))
    for row, found in zip(counts, config.predict(counts), strict=True):
        second, first = np.sort(row)[-2:]
        sure = stats.binomtest(int(first), int(first + second)).pvalue <= 0.01
        assert found == (row.argmax() if sure else ABSTAIN)
    none = np.array([[0, 0, 0], [50, 50, 0], [3, 0, 0], [0, 12, 0]])
    assert config.predict(none).tolist() == [ABSTAIN, ABSTAIN, ABSTAIN, 1]


@pytest.mark.parametrize(
    ("radius", "sigma", "alpha"), [(0.0, 0.25, 0.001), (1.0, 0.25, 0.001), (0.5, 0.5, 1e-6)]
)
def test_draws_needed_are_the_least(radius, sigma, alpha):
    n = draws_needed(radius, sigma, alpha)
    SmoothingConfig(sigma, n=n, alpha=alpha).check_reach(radius)
    with pytest.raises(SmoothingError, match=f"at least {n} are needed"):
        SmoothingConfig(sigma, n=n - 1, alpha=alpha).check_reach(radius)


def test_out_of_all_reach_is_said():
    assert draws_needed(3.0, 0.25, 0.001) is None
    with pytest.raises(SmoothingError, match="more than 1000000000 would be; raise sigma"):
        SmoothingConfig(0.25).check_reach(3.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0}, "sigma has to be above 0"),
        ({"sigma": -1.0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"sigma": math.inf}, "sigma"),
        ({"alpha": 0.0}, "alpha has to be between"),
        ({"alpha": 0.5}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"n0": 0}, "n0 has to be from 1"),
        ({"n": 0}, "n has to be from 1"),
        ({"n": 10.5}, "n has to be from 1"),
        ({"n": 10**10}, "n has to be from 1"),
        ({"n": 9}, "cannot certify anything .* at least 10 are needed"),
    ],
)
def test_settings_are_checked_in_one_line(settings, message):
    with pytest.raises(SmoothingError, match=message) as caught:
        SmoothingConfig(**({"sigma": 0.25} | settings))
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_the_same_settings():
    assert repr(SmoothingConfig(1)) == repr(SmoothingConfig(1.0))

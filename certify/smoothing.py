"""Randomised smoothing: what votes of a classifier under Gaussian noise prove of their majority.

Cohen, Rosenfeld, Kolter: Certified adversarial robustness via randomized smoothing, ICML 2019.
The subject is the *smoothed* classifier g(x) = the class c with the largest P[f(x + noise) = c],
noise ~ N(0, sigma^2 I); nothing here says anything of f itself. Each statement about one sample
fails with probability at most `alpha`, over the draws of the noise: of N certificates, up to
`alpha * N` are expected to be wrong. There is no correction for many samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

ABSTAIN = -1
"""In place of a class: the votes do not tell which one it is."""

MAX_DRAWS = 10**9
_SLACK = 1e-12
"""Taken off each probability and radius: far more than scipy's functions are wrong by."""


class SmoothingError(ValueError):
    """Settings that are not legal, or with which nothing could be certified."""

    exit_code = 5


@dataclass(frozen=True)
class SmoothingConfig:
    """Settings of randomised smoothing.

    Attributes:
        sigma: Standard deviation of the noise, in units of the input.
        n0: Draws that select the class to be certified.
        n: Further draws that estimate its probability; never those of the selection.
        alpha: Probability, for each sample, that a statement about it is wrong.

    Raises:
        SmoothingError: Out of range, or `n` so small that even equal votes certify nothing.
    """

    sigma: float
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise SmoothingError(f"sigma has to be above 0: {self.sigma}")
        if not 0 < self.alpha < 0.5:
            raise SmoothingError(f"alpha has to be between 0 and 0.5: {self.alpha}")
        for name, draws in (("n0", self.n0), ("n", self.n)):
            if not (isinstance(draws, int) and 1 <= draws <= MAX_DRAWS):
                raise SmoothingError(f"{name} has to be from 1 to {MAX_DRAWS}: {draws}")
        for name in ("sigma", "alpha"):  # 1 and 1.0 are one setting, in every hash
            object.__setattr__(self, name, float(getattr(self, name)))
        self.check_reach(0.0)

    @property
    def largest_radius(self) -> float:
        """The radius when all `n` draws agree: no sample can have a larger one."""
        return float(self.radius(np.array([self.n]))[0])

    def radius(self, votes: Counts) -> Floats:
        """CERTIFY: radii within which g does not change, from votes for the selected class.

        Args:
            votes: Of `n` draws each, int64, (m,).

        Returns:
            L2 radii in units of the input, float64, (m,): `sigma` times the standard normal
            quantile of the lower bound of the class's probability. NaN: abstained, since that
            bound is not above one half.
        """
        lower = probability_lower(votes, self.n, self.alpha)
        radius = self.sigma * special.ndtri(lower) * (1 - _SLACK)
        return np.where((lower > 0.5) & (radius > 0), radius, np.nan)

    def predict(self, counts: Counts) -> Counts:
        """PREDICT: the class g predicts, or `ABSTAIN`.

        The two classes with the most votes are compared by the exact two-sided binomial test at
        level `alpha`; which two they are is not known beforehand, and the test stays valid.

        Args:
            counts: Votes for each class, int64, (m, classes), at least two classes.

        Returns:
            int64, (m,).
        """
        order = np.argsort(-counts, axis=1, kind="stable")[:, :2]
        first, second = np.take_along_axis(counts, order, 1).T
        tail = np.where(first > second, special.bdtrc(first - 1, first + second, 0.5), 1.0)
        return np.where(2 * tail <= self.alpha, order[:, 0], ABSTAIN)

    def check_reach(self, radius: float) -> None:
        """Check before any work that radii beyond this one are possible.

        Raises:
            SmoothingError: Not even if all draws agree; says how many draws it takes.
        """
        if self.largest_radius > radius:
            return
        needed = draws_needed(radius, self.sigma, self.alpha)
        what = f"an L2 radius beyond {radius:g}" if radius else "anything"
        raise SmoothingError(
            f"n = {self.n} draws cannot certify {what} at sigma {self.sigma:g} and alpha "
            f"{self.alpha:g}, even if all agree: "
            + (
                f"at least {needed} are needed"
                if needed
                else f"more than {MAX_DRAWS} would be; raise sigma"
            )
        )


def probability_lower(votes: Counts, n: int, alpha: float) -> Floats:
    """Lower confidence bound of a probability (Clopper and Pearson 1934, one-sided, exact).

    Args:
        votes: Successes of `n` independent draws, int64, (m,), 0 to n.
        n: Draws.
        alpha: Probability that the bound is above the truth, at most.

    Returns:
        float64, (m,): below 1 even if all draws are successes, 0 if none is.
    """
    hits = np.asarray(votes, dtype=np.float64)
    bound = special.betaincinv(np.maximum(hits, 1), n - hits + 1, alpha) * (1 - _SLACK)
    return np.where(hits > 0, bound, 0.0)


def draws_needed(radius: float, sigma: float, alpha: float) -> int | None:
    """Least number of draws that can certify radii beyond `radius`: if all agree.

    The bound is then `alpha ** (1 / n)`. None: more than `MAX_DRAWS`.
    """
    needed = math.log(alpha) / float(special.log_ndtr(radius / sigma))
    return None if needed > MAX_DRAWS * (1 - 1e-6) else math.floor(needed * (1 + 1e-9)) + 1

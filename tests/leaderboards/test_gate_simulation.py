"""How often the gate fails: never more than it may where nothing got worse, and where it should.

python -m pytest tests/leaderboards/test_gate_simulation.py -s      prints the table of docs/gate.md

Each sample has a level in each of two models: 0 wrong, 1 broken, 2 undecided, 3 certified. Clean is
level 1 at least, robust 2, certified 3, so the metrics hang together as they do in a run. Pairs of
levels are drawn; a design says with which probability a sample is at i before and at j after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.special import bdtr
from scipy.stats import binom

from leaderboards.gate import METRICS, Limits, judge

PAGE = Path(__file__).parents[2] / "docs" / "gate.md"
PAIRS = 20_000
LIMITS = Limits()
AT = (0.06, 0.24, 0.2, 0.5)
"""Of samples that do not flip, the share at each level."""


@dataclass(frozen=True)
class Design:
    """Probabilities of flips; `metrics` are gated together."""

    name: str
    samples: int
    flips: dict[tuple[int, int], float]
    metrics: tuple[str, ...] = METRICS

    def table(self):
        found = np.diag(AT) * (1 - sum(self.flips.values()))
        for pair, share in self.flips.items():
            found[pair] += share
        return found

    def drops(self):
        """True drop in each metric."""
        down, up = np.tril(self.table()), np.triu(self.table())
        levels = [1 + METRICS.index(name) for name in self.metrics]
        return [down[t:, :t].sum() - up[:t, t:].sum() for t in levels]


def even(share):
    """Flips to every other level and back, as many there as back."""
    ways = [(i, j) for i in range(4) for j in range(4) if i != j]
    return dict.fromkeys(ways, share / len(ways))


def dropping(lower, upper, total=0.08, drop=0.03):
    return {(upper, lower): (total + drop) / 2, (lower, upper): (total - drop) / 2}


NULLS = [
    Design(f"no change, {share:.0%} flip", n, even(share) if share else {})
    for share in (0.0, 0.02, 0.08, 0.3)
    for n in (50, 200, 1000)
] + [
    Design("no change, 8% flip between the first and the last level", 1000, dropping(0, 3, drop=0)),
    Design("no change, 8% flip, certified alone", 1000, dropping(2, 3, drop=0)),
    Design("no change, 8% flip, one metric gated", 1000, dropping(2, 3, drop=0), METRICS[2:]),
    Design(
        "clean 3 points better, no change in certified",
        1000,
        {(0, 1): 0.04, (1, 0): 0.01, (2, 3): 0.015, (3, 2): 0.015},
    ),
]
DROPS = [
    Design("3 points lower, certified alone", 1000, dropping(2, 3)),
    Design("3 points lower, robust alone", 1000, dropping(1, 2)),
    Design("3 points lower, clean alone", 1000, dropping(0, 1)),
    Design("3 points lower, robust and certified", 1000, dropping(1, 3)),
    Design("3 points lower, all three", 1000, dropping(0, 3)),
    Design("3 points lower, robust alone, two metrics gated", 1000, dropping(1, 2), METRICS[:2]),
    Design("3 points lower, certified alone, 5% flip", 1000, dropping(2, 3, total=0.05)),
    Design("3 points lower, certified alone, 3% flip", 1000, dropping(2, 3, total=0.03)),
]


def pairs_of(design, number, seed=0):
    """Numbers of samples at (i, j), (number, 4, 4)."""
    probabilities = design.table().ravel()
    drawn = np.random.default_rng(seed).multinomial(design.samples, probabilities, size=number)
    return drawn.reshape(number, 4, 4)


def failed(counts, metrics):
    """Which pairs the gate fails: the same as `judge`, all at once."""
    ps = []
    for metric in metrics:
        t = 1 + METRICS.index(metric)
        lost, gained = counts[:, t:, :t].sum((1, 2)), counts[:, :t, t:].sum((1, 2))
        ps.append(bdtr(gained, lost + gained, 0.5))
    return np.min(ps, axis=0) * len(metrics) <= LIMITS.alpha  # Holm's first step


@cache
def measured(name, samples):
    design = next(d for d in NULLS + DROPS if (d.name, d.samples) == (name, samples))
    return int(failed(pairs_of(design, PAIRS), design.metrics).sum())


def row(design):
    rate = measured(design.name, design.samples) / PAIRS
    return f"| {design.name} | {design.samples} | {rate:.2%} |"


@pytest.mark.parametrize("design", [NULLS[8], NULLS[10], NULLS[13], DROPS[0], DROPS[4], DROPS[5]])
def test_the_simulation_is_the_gate(design):
    counts = pairs_of(design, 40, seed=1)
    before, after = np.indices((4, 4)).reshape(2, 16)
    for each, fails in zip(counts, failed(counts, design.metrics), strict=True):
        levels = np.repeat(before, each.ravel()), np.repeat(after, each.ravel())
        rights = {
            metric: tuple(level > METRICS.index(metric) for level in levels)
            for metric in design.metrics
        }
        found = judge(rights, LIMITS, design.metrics)
        assert any(metric.failures for metric in found) == fails


@pytest.mark.parametrize("design", NULLS, ids=lambda d: f"{d.name}, {d.samples}")
def test_what_is_no_worse_fails_five_times_in_a_hundred_at_most(design):
    assert max(design.drops()) <= 1e-12
    most = binom.ppf(1 - 1e-5, PAIRS, LIMITS.alpha)  # what 5% gives by chance
    assert measured(design.name, design.samples) <= most


@pytest.mark.parametrize("design", DROPS, ids=lambda d: d.name)
def test_a_drop_of_three_points_fails_85_times_in_a_hundred_at_least(design):
    assert max(design.drops()) == pytest.approx(0.03)
    assert sum(design.flips.values()) <= 0.08 + 1e-12
    assert measured(design.name, design.samples) >= 0.85 * PAIRS


def test_the_level_holds_for_every_number_of_flips():
    for flips in range(200):
        lost = np.arange(flips + 1)
        fails = bdtr(flips - lost, flips, 0.5) <= LIMITS.alpha
        assert binom.pmf(lost, flips, 0.5)[fails].sum() <= LIMITS.alpha


def test_the_page_has_these_numbers():
    rows = [row(design) for design in NULLS + DROPS]
    print("", "| pairs | samples | fails |", "|---|---:|---:|", *rows, sep="\n")
    text = PAGE.read_text()
    assert [line for line in rows if line not in text] == []

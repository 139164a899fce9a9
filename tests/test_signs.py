"""Attacks measure the signs, and records know their limits: the two tables are one."""

from __future__ import annotations

from attacks import diagnostics
from leaderboards.signs import SIGNS


def test_records_know_the_signs_that_attacks_measure():
    measured = {name: (sign.about, sign.limit) for name, sign in diagnostics.SIGNS.items()}
    assert measured == SIGNS
    first = diagnostics._STILL_AT_FIRST
    assert (first.about, first.limit) == SIGNS["loss-stands-still"]

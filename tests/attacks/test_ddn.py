"""DDN: near exact on linear models of two classes, and what every attack promises."""

from __future__ import annotations

import pytest
from nearest_checks import check_at_zero, check_fixed, linear_share

from attacks import ddn as module
from attacks.ddn import DDNConfig, ddn
from attacks.errors import AttackError


def attack(steps=100, targets=9, loss="margin", radius=0.1):
    config = DDNConfig(steps, radius, loss=loss, targets=targets)
    return lambda classifier, x, y, ids, threat, minimal: ddn(
        classifier, x, y, ids, threat, config, 3, minimal=minimal
    )


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_linear_models_are_solved(classes):
    assert linear_share(attack(), "l2", classes) >= 0.95


def test_cross_entropy_away_from_the_true_class():
    """It pulls at all classes at once, not towards the nearest."""
    assert 0.3 < linear_share(attack(targets=0, loss="ce"), "l2", 5) < 0.95


def test_at_a_fixed_eps():
    check_fixed(attack(12, targets=2), "l2")


def test_eps_zero():
    check_at_zero(attack(40, targets=0), "l2")


def test_a_planted_bug_is_seen(monkeypatch):
    """A gradient that is not taken in units."""
    slope = module.Offsets.slope
    monkeypatch.setattr(module.Offsets, "slope", lambda self, g: slope(self, g / self._unit()))
    assert linear_share(attack(), "l2", 3) < 0.5


def test_settings_are_checked():
    for wrong in ({"steps": 0}, {"radius": 0.0}, {"gamma": 1.0}, {"loss": "l"}, {"targets": -1}):
        with pytest.raises(AttackError):
            DDNConfig(**wrong)

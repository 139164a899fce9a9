"""PDPGD: within 1% of the nearest on linear models, and what every attack promises."""

from __future__ import annotations

import pytest
from nearest_checks import check_at_zero, check_fixed, linear_share

from attacks import pdpgd as module
from attacks.errors import AttackError
from attacks.pdpgd import PDPGDConfig, pdpgd
from attacks.threat import ThreatModel


def attack(steps=200, targets=9):
    config = PDPGDConfig(steps, targets)
    return lambda classifier, x, y, ids, threat, minimal: pdpgd(
        classifier, x, y, ids, threat, config, 3, minimal=minimal
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_models_are_solved(classes):
    assert linear_share(attack(), "l1", classes) >= 0.95


def test_without_targets_it_goes_to_the_class_that_is_likeliest_there():
    """Which is not always the nearest."""
    assert 0.7 < linear_share(attack(100, targets=0), "l1", 5) < 1.0


def test_at_a_fixed_eps():
    check_fixed(attack(25, targets=2), "l1")


def test_eps_zero():
    check_at_zero(attack(40, targets=0), "l1")


@pytest.mark.parametrize("plant", ["steps that stay long", "weight that goes the wrong way"])
def test_a_planted_bug_is_seen(plant, monkeypatch):
    if plant == "steps that stay long":
        monkeypatch.setattr(module, "_STEP_LEFT", 1.0)
    else:
        monkeypatch.setattr(module, "_RATE", -module._RATE)
    assert linear_share(attack(), "l1", 2) < 0.95


def test_settings_are_checked():
    for wrong in ({"steps": 0}, {"targets": -1}):
        with pytest.raises(AttackError):
            PDPGDConfig(**wrong)
    with pytest.raises(AttackError, match="l1"):
        module.PDPGD(PDPGDConfig(), ThreatModel.box("l2", 1.0), 3)

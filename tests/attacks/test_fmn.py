"""FMN: near exact on linear models, and what every attack promises."""

from __future__ import annotations

import pytest
import torch
from attack_checks import NORMS, Case
from nearest_checks import FAR, check_at_zero, check_fixed, linear_share, nearest

from attacks import fmn as module
from attacks.errors import AttackError
from attacks.fmn import FMNConfig, fmn
from attacks.threat import ThreatModel


def attack(steps=40, targets=9, **others):
    config = FMNConfig(steps, targets=targets, **others)
    return lambda classifier, x, y, ids, threat, minimal: fmn(
        classifier, x, y, ids, threat, config, 3, minimal=minimal
    )


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_models_are_solved(norm, classes):
    assert linear_share(attack(60 if norm == "l1" else 40), norm, classes) >= 0.95


@pytest.mark.parametrize("norm", NORMS)
def test_away_from_the_true_class(norm):
    """The class that is likeliest on the way is not always the nearest."""
    assert 0.5 < linear_share(attack(60, targets=0), norm, 5) < 1.0


@pytest.mark.parametrize("norm", NORMS)
def test_at_a_fixed_eps(norm):
    check_fixed(attack(12, targets=2), norm)


@pytest.mark.parametrize("norm", NORMS)
def test_eps_zero(norm):
    check_at_zero(attack(20, targets=0), norm)


@pytest.mark.parametrize("norm", NORMS)
def test_other_units_are_the_same_search(norm):
    """Inputs and box eight times as large, in a unit of 1/8 or in none: distances follow."""
    case = Case.make("mlp", norm, 32)
    small = nearest(attack(15, 0), case.module, case.x, case.y, ThreatModel.box(norm, FAR))
    case.module[0].weight.div_(8.0)
    x, y, box = 8.0 * case.x, case.y, {"lower": 0.0, "upper": 8.0}
    large = nearest(attack(15, 0), case.module, x, y, ThreatModel.box(norm, FAR, **box))
    scale = torch.full((9,), 8.0)
    same = nearest(attack(15, 0), case.module, x, y, ThreatModel.box(norm, FAR, scale=scale, **box))
    assert (large == 8.0 * small).all()
    assert (same == small).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_planted_bug_is_seen(norm, monkeypatch):
    """A guess of the radius that takes the norm itself for its dual."""
    monkeypatch.setattr(module, "dual_length", lambda norm, rows: 1e-3 * rows[:, :1].abs())
    monkeypatch.setattr(module, "_LAST_GAMMA", 0.05)
    assert linear_share(attack(60), norm, 2) < 0.95


def test_settings_are_checked():
    for wrong in ({"steps": 0}, {"alpha": 0.0}, {"gamma": 1.0}, {"targets": -1}):
        with pytest.raises(AttackError):
            FMNConfig(**wrong)

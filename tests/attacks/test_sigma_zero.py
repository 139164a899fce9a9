"""Sigma-zero: the fewest features on linear models, and what every attack promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nearest_checks import FAR, check_at_zero, check_fixed, frozen_linear, linear_share, nearest

from attacks import sigma_zero as module
from attacks.errors import AttackError
from attacks.sigma_zero import SigmaZeroConfig, best_change, sigma_zero
from attacks.threat import ThreatModel


def attack(steps=100, targets=0):
    config = SigmaZeroConfig(steps, targets)
    return lambda classifier, x, y, ids, threat, minimal: sigma_zero(
        classifier, x, y, ids, threat, config, 3, minimal=minimal
    )


def optimal_share(run, d=40, n=32) -> float:
    """Share of samples whose fewest features are found: two classes, several features each."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, d)).astype(np.float32)
    x = rng.uniform(-2, 3, (n, d)).astype(np.float32).astype(np.float64)
    pull = weight[1].astype(np.float64) - weight[0]
    gains = np.sort(np.abs(pull) * np.where(pull > 0, 3 - x, x + 2), axis=1)[:, ::-1]
    least = 0.3 * gains.sum(1) - x @ pull
    bias = np.array([least.max(), 0.0], dtype=np.float32)
    gap = float(bias[0]) - x @ pull
    assert (gap > 0).all()
    exact = 1 + (gains.cumsum(1) <= gap[:, None]).sum(1)
    assert 3 < np.median(exact) < exact.max() <= d
    threat = ThreatModel.box("l0", FAR, -2.0, 3.0)
    y = torch.zeros(n, dtype=torch.int64)
    found = nearest(run, frozen_linear(weight, bias), torch.tensor(x).float(), y, threat)
    assert (found >= exact).all(), "fewer than possible"
    return float((found == exact).mean())


def test_linear_models_are_solved():
    assert optimal_share(attack()) >= 0.9


def test_more_classes_features_of_other_units_and_one_that_is_held():
    assert linear_share(attack(targets=9), "l0", 3) >= 0.9


def test_at_a_fixed_eps():
    check_fixed(attack(20, targets=2), "l0")


def test_eps_zero():
    check_at_zero(attack(40), "l0")


def test_the_best_change_is_the_best_of_all():
    slope = torch.tensor([[3.0, -2.0, 0.0, 1.0]]).double()
    low, high = torch.tensor([[-1.0, -4.0, -9.0, 0.0]]), torch.tensor([[1.0, 0.0, 9.0, 2.5]])
    for count, wanted in ((0, [0, -4, 0, 0]), (2, [1, -4, 0, 0]), (4, [1, -4, 0, 2.5])):
        found = best_change(slope, low.double(), high.double(), torch.tensor([[count]]))
        assert found.tolist() == [wanted]


@pytest.mark.parametrize("plant", ["smallest first", "threshold that goes the wrong way"])
def test_a_planted_bug_is_seen(plant, monkeypatch):
    if plant == "smallest first":
        right = module.best_change
        monkeypatch.setattr(module, "best_change", lambda s, *more: right(s.sign(), *more))
    else:
        monkeypatch.setattr(module, "_THRESHOLD_RATE", -module._THRESHOLD_RATE)
        monkeypatch.setattr(module, "best_change", lambda s, low, high, count: 0 * s)
    assert optimal_share(attack()) < 0.9


def test_settings_are_checked():
    for wrong in ({"steps": 10}, {"targets": -1}):
        with pytest.raises(AttackError):
            SigmaZeroConfig(**wrong)

"""On linear models PGD finds the minimal distance, to 1e-3, in every norm, box or no box.

The last feature is immutable and carries, sample by sample, the bias that puts the minimal
distance of every sample at the same eps: one bisection then serves them all.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_checks import NORMS, Norm, check_inside, reach
from torch import nn

from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel

SAMPLES = 12
SETTINGS = {"steps": 200, "loss": "margin", "random_start": False, "goal": "multi-targeted"}
"""And a step of eps / 10, one restart for each other class: what reaches 1e-3."""


def linear(weights: np.ndarray) -> nn.Module:
    """Logits `weights @ features`, to the first of which the last feature is added."""
    classes, d = weights.shape
    module = nn.Linear(d + 1, classes, bias=False).eval().requires_grad_(False)
    module.weight.copy_(torch.tensor(np.c_[weights, np.eye(classes)[:, :1]]))
    return module


def biases(norm: Norm, weights: np.ndarray, x: np.ndarray, box: float, eps: float) -> np.ndarray:
    """For each row of `x` the bias of class 0 whose minimal distance to another class is `eps`."""
    found = []
    for row in x:
        gains = []
        for other in weights[1:]:
            pull = other - weights[0]
            cap = np.where(pull > 0, box - row, row)
            gains.append(reach(norm, np.abs(pull), cap, eps) + pull @ row)
        found.append(max(gains))
    return np.array(found)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("active", [False, True], ids=["free", "box-active"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_minimal_distance_is_found(norm, active, classes):
    rng, d = np.random.default_rng(5), 20
    eps = {"linf": 0.2, "l2": 0.6, "l1": 2.0}[norm]
    box = 1.0 if active else 100.0
    weights = rng.normal(size=(classes, d)).astype(np.float32).astype(np.float64)
    x = rng.uniform(0.0, box, (SAMPLES, d)) if active else rng.uniform(40, 60, (SAMPLES, d))
    x = x.astype(np.float32).astype(np.float64)
    shift = biases(norm, weights, x, box, eps)
    samples = torch.tensor(np.c_[x, shift], dtype=torch.float32)
    y = torch.zeros(SAMPLES, dtype=torch.int64)
    immutable = torch.arange(d + 1) == d
    lower = torch.where(immutable, -1e4, 0.0)
    upper = torch.where(immutable, 1e4, box)
    classifier = TiledClassifier(linear(weights))

    def found(radius: float) -> torch.Tensor:
        threat = ThreatModel.box(norm, radius, lower, upper, immutable)
        config = PGDConfig(restarts=classes - 1, step_size=radius / 10, **SETTINGS)
        result = pgd(classifier, samples, y, torch.arange(SAMPLES), threat, config, 0)
        check_inside(threat, samples, result.adversarial)
        return result.found

    assert not found(eps * (1 - 1e-3)).any(), "broken below the minimal distance"
    low, high = eps / 2, eps * 1.5
    while high - low > 2e-4 * eps:
        middle = (low + high) / 2
        low, high = (low, middle) if bool(found(middle).all()) else (middle, high)
    assert high <= eps * (1 + 1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_away_from_the_box_the_reference_is_the_dual_norm(norm):
    weights = np.random.default_rng(0).normal(size=(2, 7))
    pull, x = weights[1] - weights[0], np.full((1, 7), 50.0)
    dual = np.linalg.norm(pull, {"linf": 1, "l2": 2, "l1": np.inf}[norm])
    shift = biases(norm, weights, x, 100.0, 0.3)
    assert shift[0] - pull @ x[0] == pytest.approx(0.3 * dual)


@pytest.mark.parametrize("norm", NORMS)
def test_a_scale_rescales_the_minimal_distance(norm):
    """Features in other units, with their scale, are the same problem."""
    rng = np.random.default_rng(1)
    unit = torch.tensor([1.0, 4.0, 0.5, 16.0])  # powers of two: the same bits, shifted
    w, x = torch.tensor(rng.normal(size=(3, 4))).float(), torch.tensor(rng.uniform(size=(30, 4)))
    x = x.float()
    found = []
    for factor in (torch.ones(4), unit):
        module = nn.Linear(4, 3).eval().requires_grad_(False)
        module.weight.copy_(w / factor)
        module.bias.zero_()
        classifier = TiledClassifier(module)
        y = classifier.logits(x * factor).argmax(1)
        threat = ThreatModel.box(norm, 0.25, 0.0, factor, scale=factor)
        config = PGDConfig(steps=10, restarts=2)
        result = pgd(classifier, x * factor, y, torch.arange(30), threat, config, 0)
        check = recheck(classifier, None, x * factor, result.adversarial, y, threat)
        assert (check.broken == result.found).all()
        found.append(result.found)
    assert torch.equal(*found)
    assert 0 < int(found[0].sum()) < 30

"""Every attack and suite on tables, few classes and boxes of any kind: verdicts as they must be.

The models are linear, so the exact distance of each sample is known: nothing may be found beyond
it, and the suites find all that is within.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from attack_checks import Case, check_legal
from nearest_checks import frozen_linear, linear_distance
from test_registry import SMALL

from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.foolbox_adapter import FoolboxConfig
from attacks.registry import kind_of
from attacks.square import SquareConfig
from attacks.suites import SUITES
from attacks.threat import ThreatModel
from attacks.transform_search import TransformConfig

PAIRS = ((2, "linf"), (3, "l2"), (5, "l1"))
FEATURES, SAMPLES, HELD = 10, 34, 3


@cache
def table(classes: int, norm: str) -> tuple[Case, np.ndarray]:
    """Features with ranges of their own, one of which is held; eps is in ranges, a median."""
    rng = np.random.default_rng(classes)
    low = rng.uniform(-50.0, 1.0, FEATURES).astype(np.float32)
    high = (low + 10.0 ** rng.uniform(-1.0, 2.0, FEATURES)).astype(np.float32)
    unit = high - low
    weight = (rng.normal(size=(classes, FEATURES)) / unit).astype(np.float32)
    x = np.clip(low + unit * rng.uniform(size=(SAMPLES, FEATURES)).astype(np.float32), low, high)
    bias = -(x @ weight.T).mean(0)
    module, samples = frozen_linear(weight, bias), torch.tensor(x)
    y = TiledClassifier(module).logits(samples).argmax(1)
    held = np.arange(FEATURES) == HELD
    wide = [part.astype(np.float64) for part in (weight, bias, x, unit)]
    ends = ((np.where(held, row, low), np.where(held, row, high)) for row in x)
    exact = np.array(
        [
            linear_distance(norm, wide[0], wide[1], row, int(own), *end, wide[3])
            for row, own, end in zip(wide[2], y, ends, strict=True)
        ]
    )
    lower, upper, mask, scale = (torch.tensor(part) for part in (low, high, held, unit))
    eps = 2.0 if norm == "l0" else float(np.median(exact))
    threat = ThreatModel.box(norm, eps, lower, upper, mask, scale)
    return Case(module, samples, y, torch.arange(SAMPLES), threat), exact


@pytest.mark.parametrize(("classes", "norm"), PAIRS)
@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_suites_break_what_can_be_broken(suite, classes, norm):
    case, exact = table(classes, norm)
    found = torch.zeros(SAMPLES, dtype=torch.bool)
    for _, config in suite.parts:
        config = SquareConfig(queries=50) if isinstance(config, SquareConfig) else config
        left = (~found).nonzero()[:, 0]
        part = replace(case.rows(left), config=config)
        result = part.run()
        check_legal(part, result)
        found[left] = result.found
    assert not found[torch.tensor(exact > case.threat.eps)].any()
    assert found[torch.tensor(exact < 0.99 * case.threat.eps)].all()
    assert 5 < int(found.sum()) < SAMPLES - 5


@pytest.mark.parametrize(("classes", "norm"), PAIRS)
@pytest.mark.parametrize("config", SMALL, ids=lambda config: kind_of(config).name)
def test_attacks_break_nothing_that_cannot_be_broken(config, classes, norm):
    kind = kind_of(config)
    norm = norm if norm in kind.norms and not isinstance(config, FoolboxConfig) else kind.norms[0]
    case, exact = table(classes, norm)
    if isinstance(config, TransformConfig):
        config = replace(config, families=("noise",))  # the other is for images
    case = replace(case, config=config)
    result = case.run()
    check_legal(case, result)
    judged = recheck(
        TiledClassifier(case.module), None, case.x, result.adversarial, case.y, case.threat
    )
    assert torch.equal(judged.broken, result.found)
    within = case.threat.eps * (1 + 1e-6)
    assert not result.found[torch.tensor(exact > within)].any()
    if kind.knowledge == "white-box":
        assert result.found[torch.tensor(exact <= 0.5 * within)].any()

"""The search for the nearest adversarial example finds the exact distance of hard small ReLU nets.

The net is the hardest of twenty; scripts/attack_strength.py measures twenty others.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_checks import NORMS, Case, check_inside, check_same
from nearest_checks import FAR, network, relu_distance, share_within
from nearest_checks import nearest as measured

from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.errors import AttackError
from attacks.nearest import NearestConfig, distance_of, nearest
from attacks.threat import ThreatModel

NET = (107, 3, 3)  # seed, features, classes
SMALL = NearestConfig(steps=15, restarts=1, queries=60)


@pytest.mark.parametrize("norm", ["linf", "l1", pytest.param("l2", marks=pytest.mark.slow)])
def test_it_is_within_one_percent_and_never_below(norm):
    module, net, x, y = network(*NET, 24)

    def search(classifier, x, y, ids, threat, minimal):
        return nearest(classifier, x, y, ids, threat, NearestConfig(), 3)

    found = measured(search, module, x, y, ThreatModel.box(norm, FAR))
    zero, one = np.zeros(NET[1]), np.ones(NET[1])
    rows = zip(x.double().numpy(), y, strict=True)
    exact = [relu_distance(norm, net, row, int(own), zero, one) for row, own in rows]
    assert share_within(found, np.array(exact)) >= 0.95


@pytest.mark.parametrize("norm", [*NORMS, "l0"])
def test_it_hangs_on_nothing_but_the_sample_and_stays_within_eps(norm):
    case = Case.make("mlp", norm, n=40)
    threat = ThreatModel.box(norm, 2.0 * case.threat.eps)

    def run(rows, tiles=(32,)):
        given = (case.x[rows], case.y[rows], case.ids[rows], threat)
        return nearest(TiledClassifier(case.module, tiles), *given, SMALL, seed=3)

    every = torch.arange(40)
    whole = run(every)
    check_inside(threat, case.x, whole.adversarial)
    assert int(whole.found.sum()) > 5
    judged = recheck(TiledClassifier(case.module), None, case.x, whole.adversarial, case.y, threat)
    assert torch.equal(judged.broken, whole.found)
    apart = distance_of(whole, case.x, threat)
    assert torch.equal(apart[whole.found], judged.distance[whole.found])
    assert apart[~whole.found].isinf().all()
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(2))[:33]
    check_same(whole, run(rows, (32, 64)), rows)


def test_each_part_only_comes_nearer():
    case = Case.make("mlp", "linf", n=32)
    threat = ThreatModel.box("linf", FAR)
    given = (TiledClassifier(case.module), case.x, case.y, case.ids, threat)
    short = distance_of(nearest(*given, NearestConfig(15, 1, queries=0), 3), case.x, threat)
    full = distance_of(nearest(*given, SMALL, 3), case.x, threat)
    assert (full <= short).all()
    assert (full < short).any()


def test_no_samples_and_wrong_settings():
    case = Case.make("mlp", "linf", n=4)
    none = torch.arange(0)
    given = (case.x[none], case.y[none], case.ids[none], case.threat)
    assert len(nearest(TiledClassifier(case.module), *given, SMALL, 3).found) == 0
    for wrong in ({"steps": 3}, {"restarts": 0}, {"targets": 0}, {"queries": -1}):
        with pytest.raises(AttackError):
            NearestConfig(**wrong)

"""How often each search finds the exact distance, to 1%, on small ReLU nets of random weights.

These have many local minima for their size. The floors are the measured shares, less one or two of
the 48 samples; together the searches find 46. Nets of other seeds can be harder: the search that is
meant for use, `attacks.nearest`, is held to those in test_nearest.py.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from attack_checks import NORMS
from nearest_checks import FAR, nearest, network, relu_distance, share_within

from attacks.ddn import DDNConfig, ddn
from attacks.fab import FABConfig, fab
from attacks.fmn import FMNConfig, fmn
from attacks.threat import ThreatModel

NETS = ((0, 2, 2), (2, 4, 3))  # seed, features, classes
SAMPLES = 24
ATTACKS = {
    "fab": (fab, FABConfig(30, restarts=6, targets=2)),
    "fmn": (fmn, FMNConfig(80, targets=2)),
    "ddn": (ddn, DDNConfig(100, radius=0.1, loss="margin", targets=2)),
}
FLOORS = {
    ("fab", "linf"): 0.9,
    ("fab", "l2"): 0.9,
    ("fab", "l1"): 0.9,
    ("fmn", "linf"): 0.8,
    ("fmn", "l2"): 0.83,
    ("fmn", "l1"): 0.85,
    ("ddn", "l2"): 0.83,
}
TOGETHER = 0.95


@cache
def distances(norm: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What each attack finds, and what is to be found, over all nets."""
    found, exact = [], []
    for seed, d, classes in NETS:
        module, net, x, y = network(seed, d, classes, SAMPLES)
        threat, zero, one = ThreatModel.box(norm, FAR), np.zeros(d), np.ones(d)
        exact += [
            relu_distance(norm, net, row, int(own), zero, one)
            for row, own in zip(x.double().numpy(), y, strict=True)
        ]
        each = {}
        for name, (function, config) in ATTACKS.items():
            if (name, norm) in FLOORS:

                def attack(classifier, x, y, ids, threat, minimal, f=function, c=config):
                    return f(classifier, x, y, ids, threat, c, 3, minimal=minimal)

                each[name] = nearest(attack, module, x, y, threat)
        found.append(each)
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}, np.array(
        exact
    )


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(*each, marks=pytest.mark.slow) if each[:2] == ("fab", "l1") else each
        for each in FLOORS
    ],
)
def test_each_search(name, norm):
    found, exact = distances(norm)
    assert share_within(found[name], exact) >= FLOORS[name, norm]


@pytest.mark.parametrize("norm", NORMS)
def test_together(norm):
    found, exact = distances(norm)
    assert share_within(np.min(list(found.values()), axis=0), exact) >= TOGETHER


@pytest.mark.parametrize("norm", NORMS)
def test_the_exact_distance_is_that_of_a_grid(norm):
    """In two dimensions: no point of a grid is nearer, and one is about as near."""
    module, net, x, y = network(*NETS[0], SAMPLES)
    line = torch.linspace(0.0, 1.0, 401)
    grid = torch.cartesian_prod(line, line)
    predicted, order = module(grid).argmax(1), {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    for row, own in zip(x[:6], y[:6], strict=True):
        wrong = (grid[predicted != own] - row).double().numpy()
        least = np.linalg.norm(wrong, order, axis=1).min()
        exact = relu_distance(norm, net, row.double().numpy(), int(own), np.zeros(2), np.ones(2))
        assert exact - 1e-6 <= least <= exact + 0.01

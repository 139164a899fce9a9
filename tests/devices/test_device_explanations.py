"""Explanations on another device: bent and bounded as on the CPU."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

import robustbench_c
from attacks.explanation_config import ExplanationAttackConfig
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation
from attacks.threat import ThreatModel, WeightBudget
from robustbench_c.evaluation import ExplainConfig
from robustbench_c.evaluation.verify import verify

pytestmark = pytest.mark.slow

QUICK = ExplanationAttackConfig(steps=3)
CASES = {
    "gradient": ExplainConfig(attack=QUICK, methods=("interval", "crown-interval", "linear")),
    "loss": ExplainConfig(Explanation("gradient", "loss"), attack=QUICK),
    "margin": ExplainConfig(Explanation("absolute-gradient", "margin"), attack=QUICK),
    "input": ExplainConfig(Explanation("input-x-gradient"), attack=QUICK),
    "integrated": ExplainConfig(
        Explanation("integrated-gradients", steps=3), attack=QUICK, methods=("interval",)
    ),
    "smoothgrad": ExplainConfig(
        Explanation.smoothgrad((1, 8, 8), 3, 0.05, 0), attack=QUICK, methods=("interval",)
    ),
    "weights": ExplainConfig(attack=QUICK, budget=WeightBudget(0.01, True)),
    "center": ExplainConfig(
        attack=ExplanationAttackConfig(steps=3, aim="mass-centre"), methods=("interval",)
    ),
    "top k": ExplainConfig(criterion=Criterion("top-k", 0.4, 5), attack=QUICK),
    "into top k": ExplainConfig(criterion=Criterion("into-top-k", 0.0, 5, (3, 9)), attack=QUICK),
    "lists": ExplainConfig(attack=None, methods=("crown-interval",), lipschitz=2, monotone=(3, 10)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_explanations(net, images, tmp_path, device, same, name, norm):
    threat = ThreatModel.box(norm, {"linf": 0.02, "l1": 0.3}[norm])
    options = {"threat": threat, "config": CASES[name], "save_adversarial": True}
    call = robustbench_c.evaluate_explanations
    images = images.subset(torch.arange(8))
    here = call(deepcopy(net), images, device="cpu", out=tmp_path / "cpu", **options)
    with device.there():
        own, out = deepcopy(net), tmp_path / "device"
        there = call(own, images, device=device.name, out=out, **options)
        again = verify(there.store, own, images, device.name)
    same(here, there)
    assert not again.problems

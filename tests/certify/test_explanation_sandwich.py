"""What an attack reaches is never beyond what a box of explanations allows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from explanation_nets import CLASSES, NETS, SHAPE, in_short, net
from torch import Tensor, nn

from attacks.driver import in_float64
from attacks.explanation_attacks import (
    ExplanationAttackConfig,
    ExplanationRecheck,
    attack_explanations,
    recheck_explanations,
)
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, seeds
from attacks.threat import ThreatModel, WeightBudget
from certify.explaining import METHODS, ExplanationCertifier, Method
from certify.explanation_metrics import worst_distance

N = 4
CRITERIA = {
    "linf": Criterion("linf"),
    "l2": Criterion("l2", relative=True),
    "l1": Criterion("l1"),
    "mean": Criterion("mean"),
    "cosine": Criterion("cosine"),
    "top-k": Criterion("top-k", k=4),
    "into-top-k": Criterion("into-top-k", k=4, features=(0, 5, 9), signed=True),
    "out-of-top-k": Criterion("out-of-top-k", k=9, features=(0, 5, 9)),
}
CONFIG = ExplanationAttackConfig(steps=6)


def samples(n: int = N) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))


def attacked(
    model: nn.Module,
    x: Tensor,
    explanation: Explanation,
    criterion: Criterion,
    threat: ThreatModel | None,
    budget: WeightBudget | None,
    config: ExplanationAttackConfig = CONFIG,
) -> ExplanationRecheck:
    target = model(x).argmax(1)
    other = (target + 1) % CLASSES if explanation.of == "margin" else None
    ids = torch.arange(len(x))
    result = attack_explanations(
        model,
        x,
        target,
        ids,
        threat,
        explanation,
        criterion,
        config,
        0,
        other=other,
        budget=budget,
    )
    check = recheck_explanations(
        model,
        in_float64(model, x),
        x,
        result.adversarial,
        target,
        threat,
        explanation,
        criterion,
        other=other,
        budget=budget,
        weights=result.weights,
    )
    assert check.legal.all()
    assert (check.kept | (result.distance == 0)).all()
    return check


def upper(
    model: nn.Module,
    x: Tensor,
    explanation: Explanation,
    criterion: Criterion,
    threat: ThreatModel | None,
    budget: WeightBudget | None,
    clean: Tensor,
    method: Method = "crown-interval",
) -> Tensor:
    target = model(x).argmax(1)
    other = (target + 1) % CLASSES if explanation.of == "margin" else None
    seed = seeds(explanation, target, model(x[:1]).shape[1], other)
    certifier = ExplanationCertifier(model, x, explanation)
    return worst_distance(criterion, clean, certifier.box(x, seed, threat, budget, method))


@pytest.mark.parametrize("measure", CRITERIA)
@pytest.mark.parametrize(
    "method",
    [m if m == "crown-interval" else pytest.param(m, marks=pytest.mark.slow) for m in METHODS],
)
def test_no_attack_passes_a_bound_by_any_measure(measure: str, method: Method) -> None:
    criterion, explanation = CRITERIA[measure], Explanation()
    for name in ("relu", "max pooling"):
        model, x = net(name), samples()
        for threat, budget in (
            (ThreatModel.box("l2", 0.1), None),
            (ThreatModel.box("linf", 0.02), WeightBudget(0.02)),
        ):
            check = attacked(model, x, explanation, criterion, threat, budget)
            bound = upper(model, x, explanation, criterion, threat, budget, check.clean, method)
            assert (check.lower <= bound).all(), name


@pytest.mark.parametrize("name", in_short(NETS, 1))
def test_no_attack_passes_a_bound_of_any_net(name: str) -> None:
    model, x = net(name), samples()
    for measure, threat, budget in (
        ("linf", ThreatModel.box("linf", 0.05), None),
        ("l2", None, WeightBudget(0.02)),
    ):
        criterion, explanation = CRITERIA[measure], Explanation()
        check = attacked(model, x, explanation, criterion, threat, budget)
        bound = upper(model, x, explanation, criterion, threat, budget, check.clean)
        assert (check.lower <= bound).all(), measure


@pytest.mark.parametrize(
    "explanation",
    [
        Explanation(of="loss"),
        Explanation("absolute-gradient", "margin"),
        Explanation("input-x-gradient"),
        Explanation("integrated-gradients", steps=3, baseline=torch.full(SHAPE, 0.2)),
        Explanation.smoothgrad(SHAPE, 3, 0.1),
    ],
    ids=lambda explanation: f"{explanation.kind} of {explanation.of}",
)
def test_no_attack_passes_a_bound_of_any_explanation(explanation: Explanation) -> None:
    threat, criterion = ThreatModel.box("linf", 0.03), Criterion("l2")
    for name in ("relu", "sigmoid, images"):
        model, x = net(name), samples()
        for budget in (None, WeightBudget(0.01, relative=False)):
            check = attacked(model, x, explanation, criterion, threat, budget)
            bound = upper(model, x, explanation, criterion, threat, budget, check.clean)
            assert (check.lower <= bound).all(), name
            assert check.lower.max() > 0, name


@pytest.mark.parametrize("halved", ["eps", "gamma"])
def test_a_bound_for_half_of_what_is_allowed_is_passed(halved: str) -> None:
    """The attack is strong enough to see it: the published bounds halved gamma."""
    model: nn.Module
    if halved == "eps":  # a ReLU that is reached with three quarters of eps, and not with half
        x, threat, budget = 0.5 * torch.ones(2, 9), ThreatModel.box("linf", 0.1), None
        model = nn.Sequential(nn.Linear(9, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
        with torch.no_grad():
            model[0].weight.fill_(1.0)
            model[0].bias.fill_(-9 * 0.575)
            model[2].weight.copy_(torch.tensor([[2.0], [1.0]]))
            model[2].bias.copy_(torch.tensor([5.0, 0.0]))
    else:
        x, threat, budget = torch.rand(2, 9), None, WeightBudget(0.1)
        model = nn.Linear(9, 2).eval()
        with torch.no_grad():
            model.bias.copy_(torch.tensor([9.0, 0.0]))
    criterion, config = Criterion("l1"), ExplanationAttackConfig(steps=30)
    check = attacked(model, x, Explanation(), criterion, threat, budget, config)
    whole = upper(model, x, Explanation(), criterion, threat, budget, check.clean)
    assert (check.lower <= whole).all()
    if threat is not None:
        threat = replace(threat, eps=0.05)
    if budget is not None:
        budget = replace(budget, gamma=0.05)
    half = upper(model, x, Explanation(), criterion, threat, budget, check.clean)
    assert (check.lower > half).all()

"""Attacks on explanations: finds are legal and real, and do not depend on company or order."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache

import pytest
import torch
from attack_checks import check_inside
from torch import Tensor, nn

from attacks.driver import in_float64
from attacks.explanation_attacks import (
    ExplanationAttackConfig,
    ExplanationAttackResult,
    attack_explanations,
)
from attacks.explanation_driver import recheck_explanations
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation
from attacks.threat import ThreatModel, WeightBudget
from robustbench_c import data, zoo

GRADIENT, COSINE = Explanation(), Criterion("cosine")
QUICK = ExplanationAttackConfig(steps=6, restarts=2)
ALLOWED: dict[str, tuple[ThreatModel | None, WeightBudget | None]] = {
    "linf": (ThreatModel.box("linf", 0.025), None),
    "l2": (ThreatModel.box("l2", 0.5), None),
    "l1": (ThreatModel.box("l1", 5.0), None),
    "weights": (None, WeightBudget(0.02)),
    "joint": (ThreatModel.box("linf", 0.025), WeightBudget(0.001, relative=False)),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A model, samples with what it predicts for them, and an attack."""

    model: nn.Module
    x: Tensor
    target: Tensor
    ids: Tensor
    threat: ThreatModel | None
    budget: WeightBudget | None = None
    explanation: Explanation = GRADIENT
    criterion: Criterion = COSINE
    config: ExplanationAttackConfig = QUICK

    @classmethod
    def zoo(cls, allowed: str, n: int = 40) -> Case:
        model = zoo.load("fmnist-cnn-standard").module
        test = data.load("fashion-mnist-mini").head(n)
        target = model(test.x).argmax(1)
        return cls(model, test.x, target, test.ids, *ALLOWED[allowed])

    def rows(self, rows: Tensor) -> Case:
        return replace(self, x=self.x[rows], target=self.target[rows], ids=self.ids[rows])

    def run(self) -> ExplanationAttackResult:
        return attack_explanations(
            self.model,
            self.x,
            self.target,
            self.ids,
            self.threat,
            self.explanation,
            self.criterion,
            self.config,
            0,
            budget=self.budget,
        )


def check_same(
    one: ExplanationAttackResult, two: ExplanationAttackResult, rows: Tensor | None = None
) -> None:
    """Equality of `two` with the given rows of `one`, bit for bit."""
    for name in (part.name for part in fields(ExplanationAttackResult)):
        if name in ("seconds", "weights"):
            continue
        ours, theirs = getattr(one, name), getattr(two, name)
        ours = ours if rows is None else ours[rows]
        assert torch.equal(ours.nan_to_num(-9), theirs.nan_to_num(-9)), name
    for name, w in (one.weights or {}).items():
        assert two.weights is not None
        assert torch.equal(w if rows is None else w[rows], two.weights[name]), name


@cache
def whole(allowed: str) -> tuple[Case, ExplanationAttackResult]:
    case = Case.zoo(allowed)
    return case, case.run()


@pytest.mark.parametrize("allowed", ALLOWED)
def test_any_rows_in_any_order_are_rows_of_the_whole(allowed: str) -> None:
    case, result = whole(allowed)
    assert (result.distance > 0).all()
    for rows in (torch.randperm(40)[:11], torch.tensor([39]), torch.arange(40).flip(0)):
        check_same(result, case.rows(rows).run(), rows)


@pytest.mark.parametrize("allowed", ALLOWED)
def test_finds_are_legal_and_real(allowed: str) -> None:
    case, result = whole(allowed)
    if case.threat is None:
        assert torch.equal(result.adversarial, case.x)
    else:
        check_inside(case.threat, case.x, result.adversarial)
    check = recheck_explanations(
        case.model,
        in_float64(case.model, case.x),
        case.x,
        result.adversarial,
        case.target,
        case.threat,
        case.explanation,
        case.criterion,
        budget=case.budget,
        weights=result.weights,
    )
    assert check.legal.all()
    assert check.kept.all()
    assert torch.allclose(check.distance, result.distance, rtol=0, atol=1e-6)
    assert torch.allclose(check.lower, result.distance, rtol=0, atol=1e-4)

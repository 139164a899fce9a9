"""Cases of attacks on explanations, and what every such attack promises, as checks.

The geometry here shares nothing with the code under test.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from attack_checks import check_inside
from torch import Tensor, nn

from attacks.driver import in_float64
from attacks.explanation_attacks import (
    ExplanationAttackConfig,
    ExplanationAttackResult,
    ExplanationRecheck,
    attack_explanations,
    recheck_explanations,
)
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, explain
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


N = 10
HELD = torch.tensor([True, False, False, True, False, False])
UNIT = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.1, 4.0])


class Leaky(nn.Module):
    """ReLUs called as functions, one of them leaky."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 12)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = nn.functional.leaky_relu(self.first(x), 0.1)
        found: Tensor = self.last(torch.relu(self.second(z)))
        return found


class Branching(Leaky):
    """Asks for a value, which no vmap allows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.detach().sum()) < 1e9 else x[:, :3]


def model_of(kind: type[Leaky] = Leaky) -> nn.Module:
    torch.manual_seed(0)
    model = kind().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    return model


def case(
    threat: ThreatModel | None, budget: WeightBudget | None = None, measure: str = "l2"
) -> Case:
    model = model_of()
    x = torch.rand(N, 6, generator=torch.Generator().manual_seed(1))
    config = ExplanationAttackConfig(steps=12, restarts=2)
    return Case(
        model,
        x,
        model(x).argmax(1),
        torch.arange(N) + 100,
        threat,
        budget,
        Explanation(),
        Criterion(measure),  # type: ignore[arg-type]
        config,
    )


CASES: dict[str, Callable[[], Case]] = {
    "linf": lambda: case(ThreatModel.box("linf", 0.3, immutable=HELD)),
    "linf, scaled": lambda: case(ThreatModel.box("linf", 0.3, immutable=HELD, scale=UNIT)),
    "l2": lambda: case(ThreatModel.box("l2", 0.5, immutable=HELD, scale=UNIT)),
    "l1": lambda: case(ThreatModel.box("l1", 0.8, immutable=HELD)),
    "weights": lambda: case(None, WeightBudget(0.1)),
    "absolute": lambda: case(None, WeightBudget(0.05, relative=False)),
    "joint": lambda: case(ThreatModel.box("linf", 0.1, immutable=HELD), WeightBudget(0.05)),
}


def judge(case: Case, result: ExplanationAttackResult) -> ExplanationRecheck:
    return recheck_explanations(
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


def check_honest(case: Case) -> None:
    """What was found is legal, keeps the prediction, and is as far away as was said."""
    result = case.run()
    if case.threat is not None:
        check_inside(case.threat, case.x, result.adversarial)
    else:
        assert torch.equal(result.adversarial, case.x)
    clean = explain(case.model, case.x, case.target).detach()
    for i in range(N):
        model = copy.deepcopy(case.model)
        with torch.no_grad():
            for name, w in model.named_parameters():
                if result.weights is None or case.budget is None:
                    continue
                moved, own = result.weights[name][i].double(), w.double()
                radius = case.budget.gamma * (own.abs() if case.budget.relative else 1)
                assert ((moved - own).abs() <= radius).all(), "beyond gamma"
                w.copy_(result.weights[name][i])
        at = result.adversarial[i : i + 1]
        assert int(model(at).argmax(1)) == int(case.target[i]), "the prediction is lost"
        now = explain(model, at, case.target[i : i + 1]).detach()
        away = float(case.criterion.distance(clean[i : i + 1], now))
        assert away == pytest.approx(float(result.distance[i]), abs=1e-5), "another distance"
    check = judge(case, result)
    assert check.legal.all()
    assert torch.equal(result.found, result.distance > case.criterion.threshold)
    assert (result.distance > 0).float().mean() >= 0.7, "nothing found"
    assert not result.not_finite.any()
    looks = case.config.restarts * (case.config.steps + 1)
    assert (result.forwards >= 2 * looks).all()
    assert (result.iteration <= case.config.steps).all()


def check_alone(case: Case) -> None:
    """Every sample alone gives what it gives in company."""
    whole = case.run()
    for i in (0, 3, N - 1):
        alone = case.rows(torch.tensor([i])).run()
        assert torch.equal(alone.adversarial[0], whole.adversarial[i])
        assert torch.equal(alone.distance[0], whole.distance[i])

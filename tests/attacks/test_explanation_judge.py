"""The judge of attacked explanations: what is illegal by one bit never counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bending_checks import (
    HELD,
    N,
    case,
    judge,
)
from torch import nn

from attacks.driver import in_float64
from attacks.explanation_attacks import (
    recheck_explanations,
)
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation
from attacks.threat import ThreatModel, WeightBudget


def test_the_judge_refuses_what_is_illegal_by_one_bit() -> None:
    one = case(ThreatModel.box("linf", 0.125, immutable=HELD))
    result = one.run()
    assert judge(one, result).legal.all()
    assert (judge(one, result).lower == result.distance).float().mean() > 0.5
    assert one.threat is not None
    high = one.threat.bounds(one.x)[1]
    beyond = torch.nextafter(high, torch.full_like(high, 9.0))
    for place in (1, 0):  # one that may move, and one that may not
        moved = one.x.clone()
        moved[:, place] = beyond[:, place]
        check = judge(one, replace(result, adversarial=moved))
        assert not check.legal.any()
        assert (check.lower == 0).all()
    nan = one.x.clone()
    nan[:, 1] = torch.nan
    assert not judge(one, replace(result, adversarial=nan)).legal.any()
    bare = replace(one, threat=None, budget=WeightBudget(0.1))
    assert not judge(bare, result).legal.any(), "an input moved where none may"


@pytest.mark.parametrize("relative", [True, False])
def test_the_judge_refuses_weights_beyond_gamma_by_one_bit(relative: bool) -> None:
    one = case(None, WeightBudget(0.125, relative))
    result = one.run()
    assert judge(one, result).legal.all()
    assert result.weights is not None
    assert one.budget is not None
    w = result.weights["first.weight"].clone()
    _, high = one.budget.bounds(one.model.first.weight)  # type: ignore[union-attr]
    w[3, 2, 1] = torch.nextafter(high[2, 1], torch.tensor(9.0))
    check = judge(one, replace(result, weights={**result.weights, "first.weight": w}))
    assert check.legal.tolist() == [i != 3 for i in range(N)]
    stranger = replace(one, budget=None)
    assert not judge(stranger, result).legal.any(), "weights moved where none may"


def test_the_judge_asks_for_the_prediction() -> None:
    one = case(ThreatModel.box("linf", 1.0))
    other = (one.target + 1) % 3
    check = recheck_explanations(
        one.model, None, one.x, one.x, other, one.threat, one.explanation, one.criterion
    )
    assert check.legal.all()
    assert not check.kept.any()
    assert check.kept64.all()
    assert check.distance64.isnan().all()
    assert (check.lower == 0).all()


def test_float64_has_a_say() -> None:
    """Where softmax is 1 in float32, the part of its error that goes with that class is lost."""
    model = nn.Linear(4, 2).eval()
    with torch.no_grad():
        model.weight.copy_(40 * torch.eye(2, 4))
        model.bias.zero_()
    x = torch.tensor([[0.4, 0.2, 0.5, 0.5]])
    bent = torch.tensor([[0.9, 0.2, 0.5, 0.5]])
    check = recheck_explanations(
        model,
        in_float64(model, x),
        x,
        bent,
        torch.tensor([0]),
        ThreatModel.box("linf", 0.6),
        Explanation(of="loss"),
        Criterion("cosine"),
    )
    assert float(check.distance) > 0.25
    assert float(check.distance64) < 1e-6
    assert float(check.lower) < 1e-6

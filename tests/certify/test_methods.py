"""Outcomes from bounds, and the one door to all methods."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from attacks.threat import ThreatModel
from certify.errors import CertifyError, UnsupportedError
from certify.methods import METHODS, Budget, Certifier, judged
from certify.result import Outcome


def small_net(seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(6, 4)
    return model.eval(), x, model(x).argmax(1)


def test_only_positive_finite_bounds_certify():
    lower = torch.tensor([0.5, 0.0, -0.2, math.nan, math.inf, -math.inf, -5.0], dtype=torch.float64)
    asked: list[list[int]] = []

    def unrounded(near: Tensor) -> Tensor:
        asked.append(near.tolist())
        return torch.tensor([0.1, -0.1])

    assert judged(lower, unrounded) == [
        Outcome.CERTIFIED,
        Outcome.ROUNDING,
        Outcome.UNKNOWN,
        Outcome.ERROR,
        Outcome.ERROR,
        Outcome.UNKNOWN,
        Outcome.UNKNOWN,
    ]
    assert asked == [[1, 2]]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_methods_prove_more_the_more_they_cost(norm):
    model, x, y = small_net()
    prover, ids = Certifier(model, x), torch.arange(len(x))
    for eps in (0.0, 0.02, 0.1):
        threat = ThreatModel.box(norm, eps)
        found = [prover.certify(method, x, y, ids, threat) for method in METHODS]
        proved = [{i for i, o in enumerate(f.outcome) if o == Outcome.CERTIFIED} for f in found]
        for cheap, dear in itertools.pairwise(proved):
            assert cheap <= dear
        for some in found[:4]:
            assert all(
                (o == Outcome.CERTIFIED) == (b > 0)
                for o, b in zip(some.outcome, some.lower.tolist(), strict=True)
            )
        if eps == 0:
            assert proved[0] == set(range(len(x)))


def test_ties_are_never_certified():
    model, x, y = small_net()
    last = model[-1]
    with torch.no_grad():
        last.weight.copy_(last.weight[:1].expand(3, -1))
        last.bias.copy_(last.bias[:1].expand(3))
    prover = Certifier(model, x)
    for method in METHODS:
        threat = ThreatModel.box("linf", 0.01)
        found = prover.certify(method, x, torch.zeros_like(y), torch.arange(len(x)), threat)
        assert Outcome.CERTIFIED not in found.outcome


def test_numbers_that_are_none_are_errors():
    model, x, y = small_net()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    prover = Certifier(model, x)
    for method in METHODS:
        found = prover.certify(method, x, y, torch.arange(len(x)), ThreatModel.box("linf", 0.01))
        assert set(found.outcome) == {Outcome.ERROR}, method


def test_what_has_no_rule_is_refused_at_once():
    class Sorting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sort(x, 1)[0]

    with pytest.raises(UnsupportedError, match=r"aten\.sort.* in 1 has no rule"):
        Certifier(nn.Sequential(nn.Linear(4, 3), Sorting()).eval(), torch.rand(2, 4))


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"subproblems": 0}, {"seconds": 0.0}])
def test_budgets_of_nothing_are_refused(wrong):
    with pytest.raises(CertifyError):
        Budget(**wrong)

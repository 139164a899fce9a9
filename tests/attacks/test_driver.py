"""The judge: what is illegal by one bit, or not broken, never counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_checks import NORMS, Norm
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.driver import Recheck, in_float64, recheck
from attacks.threat import ThreatModel


class Mean(nn.Module):
    """Class 1 where the mean of the features is above `bar`."""

    def __init__(self, bar: float) -> None:
        super().__init__()
        self.bar = nn.Parameter(torch.tensor(bar), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        above = x.flatten(1).mean(1) - self.bar
        return torch.stack([-above, above], 1)


def judge(x: Tensor, other: Tensor, threat: ThreatModel, bar: float = 0.0) -> Recheck:
    """Re-check one alleged example of class 0."""
    module = Mean(bar).eval()
    precise = in_float64(module, x[None])
    assert precise is not None
    classifiers = TiledClassifier(module), TiledClassifier(precise)
    return recheck(*classifiers, x[None], other[None], torch.tensor([0]), threat)


def ulp(value: Tensor, towards: float) -> Tensor:
    return torch.nextafter(value, torch.full_like(value, towards))


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_one_bit_out_of_the_box_is_illegal(side):
    threat = ThreatModel.box("linf", 1.0, torch.tensor([-0.3, 0.0]), torch.tensor([0.7, 1.0]))
    x = torch.tensor([0.1, 0.5])
    for feature in range(2):
        other = x.clone()
        other[feature] = (threat.lower if side < 0 else threat.upper)[feature]
        assert judge(x, other, threat, -1.0).legal.all()
        assert judge(x, other, threat, -1.0).broken.all()
        other[feature] = ulp(other[feature], 2 * side)
        check = judge(x, other, threat, -1.0)
        assert not check.legal.any()
        assert not check.broken.any()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_one_bit_beyond_eps_is_illegal(norm: Norm, scaled: bool):
    scale = torch.tensor([2.0, 1.0]) if scaled else None
    threat = ThreatModel.box(norm, 0.25, -9.0, 9.0, scale=scale)
    x, other = torch.tensor([0.5, 0.5]), torch.tensor([1.0 if scaled else 0.75, 0.5])
    check = judge(x, other, threat)
    assert check.broken.all()
    assert float(check.distance) == 0.25
    other[0] = ulp(other[0], 9.0)
    check = judge(x, other, threat)
    assert float(check.distance) > 0.25
    assert not check.legal.any()
    assert not check.broken.any()


@pytest.mark.parametrize("norm", NORMS)
def test_the_distance_is_the_norm_over_all_features(norm: Norm):
    generator = torch.Generator().manual_seed(0)
    x, other = torch.rand(2, 1, 3, 4, 5, generator=generator)
    threat = ThreatModel.box(norm, 1.0)
    found = recheck(TiledClassifier(Mean(0.5).eval()), None, x, other, torch.tensor([0]), threat)
    gap = (other.double() - x.double()).numpy().ravel()
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    assert float(found.distance) == pytest.approx(np.linalg.norm(gap, order), rel=1e-14)


def test_an_immutable_feature_may_not_move_by_a_bit():
    threat = ThreatModel.box("linf", 0.5, immutable=torch.tensor([True, False]))
    x = torch.tensor([0.5, 0.5])
    assert judge(x, torch.tensor([0.5, 0.9]), threat).broken.all()
    moved = torch.stack([ulp(x[0], 1.0), torch.tensor(0.9)])
    assert not judge(x, moved, threat).legal.any()


def test_what_is_classified_rightly_is_not_broken():
    x = torch.tensor([0.5, 0.5])
    check = judge(x, torch.tensor([0.6, 0.6]), ThreatModel.box("linf", 0.2), bar=0.7)
    assert check.legal.all()
    assert int(check.prediction) == 0
    assert float(check.margin) > 0
    assert not check.broken.any()
    assert not check.missed.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_illegal(value):
    x = torch.tensor([0.5, 0.5])
    check = judge(x, torch.tensor([0.5, value]), ThreatModel.box("linf", 0.2))
    assert not check.legal.any()
    assert not check.broken.any()


class Cancels(nn.Module):
    """(x + 10^8) - 10^8 is x in float64, and a multiple of 8 in float32."""

    def forward(self, x: Tensor) -> Tensor:
        exact = (x + 1e8) - 1e8
        return torch.cat([exact, torch.ones_like(exact)], 1)


def test_what_float64_does_not_confirm_is_rounding_and_not_broken():
    module, x = Cancels().eval(), torch.tensor([[3.0], [0.5]])
    precise = in_float64(module, x)
    assert precise is not None
    threat, y = ThreatModel.box("linf", 1.0, 0.0, 9.0), torch.tensor([0, 0])
    check = recheck(TiledClassifier(module), TiledClassifier(precise), x, x, y, threat)
    assert check.margin.tolist() == [-1.0, -1.0]
    assert check.margin64.tolist() == [2.0, -0.5]
    assert (check.missed & ~check.missed64).tolist() == [True, False]
    assert check.broken.tolist() == [False, True]
    alone = recheck(TiledClassifier(module), None, x, x, y, threat)
    assert alone.margin64.isnan().all()
    assert alone.broken.all()
    assert alone.missed64.all()


def test_a_tie_is_not_broken():
    x = torch.tensor([0.5, 0.5])
    check = judge(x, x, ThreatModel.box("linf", 0.2), bar=0.5)
    assert float(check.margin) == 0
    assert not check.broken.any()


class Stubborn(nn.Module):
    """Casts its input: converts to float64 without a word and fails when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float())


class Rounds(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


def test_models_without_a_float64_form():
    x = torch.rand(3, 2)
    assert in_float64(Stubborn().eval(), x) is None
    assert in_float64(Rounds(2, 2).eval(), x) is None
    module = nn.Linear(2, 2).eval()
    precise = in_float64(module, x)
    assert precise is not None
    assert precise(x.double()).dtype == torch.float64
    assert module.weight.dtype == torch.float32

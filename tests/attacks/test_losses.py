"""Losses against their formulas, and their gradients where float32 is at its end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import Case, check_honest
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.losses import LOSSES, attack_loss, margin
from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel


def batch(classes: int, n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = 5 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (n,), generator=generator)
    target = (y + torch.randint(1, classes, (n,), generator=generator)) % classes
    return logits, y, target


def others(row: np.ndarray, label: int) -> float:
    return max(value for i, value in enumerate(row) if i != label)


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_values_are_those_of_the_formulas(classes):
    logits, y, target = batch(classes)
    for i, row in enumerate(logits.numpy()):
        label, aim, ranked = int(y[i]), int(target[i]), np.sort(row)[::-1]
        gap = row[label] - others(row, label)
        expected = {
            ("ce", False): np.log(np.exp(row).sum()) - row[label],
            ("ce", True): row[aim] - np.log(np.exp(row).sum()),
            ("margin", False): -gap,
            ("margin", True): row[aim] - row[label],
            ("dlr", False): -gap / (ranked[0] - ranked[2]) if classes > 2 else -gap,
            ("dlr", True): (row[aim] - row[label])
            / ((ranked[0] - (ranked[2] + ranked[3]) / 2) if classes > 3 else 1.0),
        }
        for (name, targeted), value in expected.items():
            loss = attack_loss(name, classes, targeted)
            found = loss(logits[i : i + 1], y[i : i + 1], target[i : i + 1])
            assert float(found) == pytest.approx(value, rel=1e-6, abs=1e-9), (name, targeted)
        assert float(margin(logits[i : i + 1], y[i : i + 1])) == pytest.approx(gap)


@pytest.mark.parametrize(
    ("name", "targeted"),
    [("ce", False), ("ce", True), ("margin", False), ("margin", True), ("dlr", False)],
)
def test_raising_a_loss_helps_the_attacker(name, targeted):
    logits, y, target = batch(5)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(
        attack_loss(name, 5, targeted)(logits, y, target).sum(), logits
    )
    if targeted:
        assert (gradient.gather(1, target[:, None]) > 0).all()
    else:
        assert (gradient.gather(1, y[:, None]) < 0).all()


def test_the_gradient_of_cross_entropy_is_exact_when_the_model_is_confident():
    for gap in (1.0, 17.0, 30.0, 59.0):
        logits = torch.tensor([[gap, 0.0]], requires_grad=True)
        loss = attack_loss("ce", 2, False)(logits, torch.tensor([0]), torch.tensor([0]))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        p = 1 / (1 + np.exp(np.float64(gap)))
        np.testing.assert_allclose(gradient.double().numpy(), [[-p, p]], rtol=1e-5)


class Constant(nn.Module):
    """Two classes from one output, the usual way: logits (0, k z)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        z = self.factor * (x.sum(1, keepdim=True) - 1.0)
        return torch.cat([torch.zeros_like(z), z], 1)


@pytest.mark.parametrize("factor", [1.0, 40.0, 1e4])
def test_a_confident_model_with_a_constant_logit_breaks(factor):
    x, y = torch.full((1, 4), 0.5), torch.tensor([1])  # margin `factor`, distance 0.25 in linf
    classifier = TiledClassifier(Constant(factor).eval())
    for eps, breaks in ((0.24, False), (0.26, True)):
        config = PGDConfig(steps=10, restarts=1, loss="ce")
        threat = ThreatModel.box("linf", eps)
        assert bool(pgd(classifier, x, y, y, threat, config, 0).found[0]) is breaks


class Scaled(nn.Module):
    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.module(x)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_huge_logits_do_not_pass_for_robustness(loss, norm):
    case = Case.make("cnn-small", norm)
    case = replace(case, config=PGDConfig(steps=10, restarts=1, loss=loss))
    plain = case.run().found
    huge = replace(case, module=Scaled(case.module, 1e4).eval())
    result = huge.run()
    check_honest(huge, result)
    assert 10 < int(plain.sum()) < 85
    assert int(result.found.sum()) >= int(plain.sum()) - 1


class Spoiled(nn.Module):
    """Logits turn to `value` where the first feature has moved down, as the attack would."""

    def __init__(self, value: float, column: int) -> None:
        super().__init__()
        self.value, self.column = value, column

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.stack([1 + x.sum(1), -x.sum(1)], 1)
        bad = torch.zeros_like(logits)
        bad[:, self.column] = torch.where(x[:, 0] < 0.45, self.value, 0.0)
        return logits + bad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", [0, 1])
def test_logits_that_are_not_finite_break_nothing(value, column):
    classifier = TiledClassifier(Spoiled(value, column).eval())
    x, y = torch.full((8, 2), 0.5), torch.zeros(8, dtype=torch.int64)
    config = PGDConfig(steps=3, restarts=4, loss="margin")
    result = pgd(classifier, x, y, torch.arange(8), ThreatModel.box("linf", 0.2), config, 0)
    assert not result.found.any()
    assert torch.equal(result.adversarial, x)
    if not (value < 0 and column == 1):  # -inf for the wrong class is only a bad offer
        assert result.not_finite.all()


class Masking(nn.Module):
    """Its third class is ruled out, by -Inf, just where the second one leads."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x[:, 0] - 0.45
        third = torch.where(lead < 0, -torch.inf, -1.0)
        return torch.stack([lead, -lead, third], 1)


def test_minus_inf_of_a_class_that_does_not_lead_is_not_finite_either():
    classifier = TiledClassifier(Masking().eval())
    x, y = torch.full((8, 2), 0.5), torch.zeros(8, dtype=torch.int64)
    config = PGDConfig(steps=3, restarts=2, loss="margin")
    result = pgd(classifier, x, y, torch.arange(8), ThreatModel.box("linf", 0.2), config, 0)
    assert not result.found.any()
    assert result.not_finite.all()

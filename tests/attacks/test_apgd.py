"""APGD: its schedule, its strength against closed forms and PGD, and successive halving."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import NORMS, Case, Norm, check_legal, check_order_free, check_same, reach
from torch import Tensor, nn

import attacks.apgd
from attacks.apgd import APGDConfig, checkpoints
from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.halving import HalvingConfig
from attacks.losses import LOSSES
from attacks.pgd import PGDConfig
from attacks.registry import AttackConfig
from attacks.threat import ThreatModel

CONFIGS = [
    *(APGDConfig(steps=8, loss=loss) for loss in LOSSES),
    APGDConfig(steps=8, loss="dlr", targets=3, restarts=2),
    HalvingConfig(steps=2),
]


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_finds_are_legal_and_hang_on_nothing_but_the_sample(norm, config):
    case = replace(Case.make("cnn-small", norm), config=config)
    result = case.run()
    check_legal(case, result)
    assert 0 < int(result.found.sum()) < len(case.x)
    check_order_free(replace(case, tiles=(32, 64)), result, seed=4)
    check_same(result, replace(case, tiles=(64,)).run())


@pytest.mark.parametrize("config", [APGDConfig(steps=3), HalvingConfig(steps=2)], ids=str)
def test_eps_0_is_the_clean_accuracy(config):
    case = replace(Case.make("mlp", "linf", n=40), threat=ThreatModel.box("linf", 0.0))
    case = replace(case, config=config)
    assert not case.run().found.any()
    result = replace(case, y=(case.y + 1) % 3).run()
    assert result.found.all()
    assert torch.equal(result.adversarial, case.x)


class Lines(nn.Module):
    """A linear model: logits are `x @ weights + bias`."""

    def __init__(self, d: int, classes: int) -> None:
        super().__init__()
        rng = np.random.default_rng(7)
        self.weights = nn.Parameter(torch.tensor(rng.normal(size=(d, classes))).float(), False)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weights.to(x.dtype)


def breakable(case: Case) -> Tensor:
    """Which samples of a linear model have an adversarial example, exactly (float64)."""
    weights = dict(case.module.named_parameters())["weights"].double().numpy()
    lower, upper = float(case.threat.lower), float(case.threat.upper)
    found = []
    for row, label in zip(case.x.double().numpy(), case.y.tolist(), strict=True):
        gains = []
        for other in range(weights.shape[1]):
            pull = weights[:, other] - weights[:, label]
            cap = np.where(pull > 0, upper - row, row - lower)
            gain = reach(case.threat.norm, np.abs(pull), cap, case.threat.eps) + pull @ row
            gains.append(gain if other != label else -np.inf)
        found.append(max(gains))
    return torch.tensor(found)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "config", [APGDConfig(loss="margin", targets=9), HalvingConfig()], ids=["apgd", "halving"]
)
def test_all_that_can_be_broken_of_a_linear_model_is(config, norm, classes):
    """Tabular samples, in the box [-1, 2]; those within 0.1% of the boundary may go either way."""
    module = Lines(12, classes).eval()
    x = torch.tensor(np.random.default_rng(8).uniform(-1, 2, (200, 12))).float()
    y = TiledClassifier(module).logits(x).argmax(1)
    threat = ThreatModel.box(norm, {"linf": 0.25, "l2": 0.8, "l1": 2.0}[norm], -1.0, 2.0)
    case = Case(module, x, y, torch.arange(200), threat, config)
    gain = breakable(case)
    result = case.run()
    check_legal(case, result)
    scale = float(gain.abs().max())
    assert 20 < int((gain > 0).sum()) < 195
    assert not result.found[gain < -1e-6 * scale].any()
    assert result.found[gain > 1e-3 * scale].all()


def test_runs_of_halving_are_numbered_from_round_to_round():
    case = replace(Case.make("cnn-small", "l1"), config=HalvingConfig(steps=1))
    result = case.run()
    before = [0]
    for targets, steps in case.config.plan(5):
        before += [before[-1] + (run + 1) * (steps + 1) for run in range(targets)]
    found = result.found
    passes = torch.tensor(before)[result.restart[found]] + result.iteration[found] + 1
    assert torch.equal(result.forwards[found], passes)
    assert int(result.restart.max()) >= 4
    assert (result.restart[~found] == -1).all()


def broken(config: AttackConfig, norm: Norm) -> tuple[Tensor, float]:
    result = replace(Case.make("cnn-small", norm), config=config).run()
    return result.found, float(result.backwards.double().mean())


@pytest.mark.parametrize(
    "norm", ["linf", *(pytest.param(n, marks=pytest.mark.slow) for n in ("l2", "l1"))]
)
def test_as_strong_as_pgd_and_halving_for_fewer_gradients(norm):
    usual, _ = broken(PGDConfig(restarts=4, loss="margin", goal="multi-targeted"), norm)
    full, spent = broken(APGDConfig(steps=50, loss="margin", targets=4), norm)
    found, less = broken(HalvingConfig(steps=5), norm)
    assert int(full.sum()) >= int(usual.sum())
    assert int(found.sum()) >= int(full.sum())
    assert less < 0.5 * spent


def test_a_step_that_is_never_halved_is_weaker(monkeypatch):
    """The schedule is what APGD is about: without it the margin falls less."""
    case = replace(Case.make("cnn-small", "l2"), config=APGDConfig(loss="margin"))
    kept = case.run()
    monkeypatch.setattr(attacks.apgd, "checkpoints", lambda steps: [])
    lost = case.run()
    left = ~kept.found & ~lost.found
    assert (kept.lowest[left] < lost.lowest[left]).double().mean() > 0.9


def test_a_plan_of_halving():
    assert HalvingConfig().plan(10) == [(9, 10), (3, 30), (1, 90)]
    assert HalvingConfig().plan(2) == [(1, 10), (1, 30), (1, 90)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: APGDConfig(steps=0),
        lambda: APGDConfig(loss="hinge"),  # type: ignore[arg-type]
        lambda: APGDConfig(targets=-1),
        lambda: HalvingConfig(factor=1),
        lambda: HalvingConfig(loss="hinge"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_are_not_legal_are_refused(wrong):
    with pytest.raises(AttackError):
        wrong()

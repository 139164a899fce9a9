from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from attacks import memory
from attacks.errors import AttackError
from attacks.explanation_config import ExplanationAttackConfig
from attacks.pgd import PGDConfig
from attacks.suites import AUTO
from attacks.threat import ThreatModel
from certify.methods import Budget
from robustbench_c.errors import UsageError
from robustbench_c.evaluation import ExplainConfig, explained_piloting, piloting
from robustbench_c.evaluation.budgets import AttackBudget
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.estimate import Estimate, estimate, estimate_explanations
from robustbench_c.evaluation.piloting import heavy_tail
from robustbench_c.evaluation.protocol_steps import protocol_steps

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def brief_looks(monkeypatch):
    monkeypatch.setattr(piloting, "LOOK", 0.01)
    monkeypatch.setattr(piloting, "_PASSES", 6)
    monkeypatch.setattr(explained_piloting, "LOOK", 0.01)


def told(problem, eps=0.02, **options) -> Estimate:
    options = {"device": "cpu", "diagnose": False, "attack": PGDConfig(steps=5), **options}
    return estimate(problem.model, problem.x, problem.y, problem.threat(eps), **options)


@pytest.mark.slow
def test_longer_attacks_and_more_samples_take_longer(linear):
    short, long = told(linear), told(linear, attack=PGDConfig(steps=4000, restarts=20))
    assert 0 < short.likely <= short.most < long.most / 20
    many = linear.__class__(linear.model, linear.x.repeat(40, 1), linear.y.repeat(40))
    assert told(many, attack=PGDConfig(steps=4000)).most > 3 * told(linear).most
    assert short.memory > memory.in_use(CPU) / 2
    with pytest.raises(FrozenInstanceError):
        short.likely = 0


@pytest.mark.slow
def test_what_is_broken_takes_less_than_what_holds(linear):
    attack = PGDConfig(steps=1000, restarts=20)
    holds, breaks = told(linear, 1e-4, attack=attack), told(linear, 0.5, attack=attack)
    assert breaks.likely < 0.7 * breaks.most
    assert holds.likely > 0.95 * holds.most


@pytest.mark.slow
def test_budgets_count(linear):
    attack = PGDConfig(steps=2000, restarts=50)
    free = told(linear, attack=attack)
    few = told(linear, attack=attack, budget=AttackBudget(queries=10))
    brief = told(linear, attack=attack, budget=AttackBudget(seconds=0.5))
    assert free.most > 10 * few.most
    assert free.most - brief.most > 1
    proof = CertifyConfig("complete", Budget(5, 10_000))
    assert (found := told(linear, 0.03, attack="none", certify=proof)).most > 5 * found.likely


def test_every_step_of_a_run_is_in_it(linear, monkeypatch):
    tried = []
    for name in ("attack", "prove", "pass_cost"):
        whole = getattr(piloting.Pilot, name)
        monkeypatch.setattr(
            piloting.Pilot,
            name,
            lambda self, step, *more, name=name, whole=whole: (
                tried.append((name, step.name)) or whole(self, step, *more)
            ),
        )
    proof = CertifyConfig("cascade", Budget(2, 20), radius=True)
    told(linear, 0.05, attack=AUTO, certify=proof, diagnose=True)
    steps = protocol_steps(AUTO, proof, linear.threat(0.05))
    assert [n for kind, n in tried if kind != "pass_cost"] == [step.name for step in steps]
    assert tried[-1] == ("pass_cost", "square")  # the diagnosis


def test_what_evaluate_refuses_is_refused(linear):
    with pytest.raises(UsageError, match="threat model"):
        estimate(linear.model, linear.x, linear.y)
    with pytest.raises(AttackError):
        told(linear, -1.0)


def test_a_model_that_is_always_wrong_has_an_estimate(linear):
    wrong = linear.__class__(linear.model, linear.x, (linear.model(linear.x).argmax(1) + 1) % 3)
    found = told(wrong)
    assert 0 < found.likely == found.most < 60


def test_explanations(linear):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 8), nn.Softplus(), nn.Linear(8, 3)).eval()

    def of(**options) -> Estimate:
        config = ExplainConfig(**options)
        threat = ThreatModel.box("linf", 0.05)
        return estimate_explanations(net, linear.x, linear.y, threat, config=config, device="cpu")

    short = of(attack=ExplanationAttackConfig(steps=5))
    long = of(attack=ExplanationAttackConfig(steps=5000, restarts=10))
    assert 0 < short.likely <= short.most < long.most / 5
    more = of(
        attack=None,
        methods=("interval", "linear"),
        lipschitz=2000,
        monotone=(0, 1),
    )
    assert more.most > more.likely > 0
    with pytest.raises(UsageError, match="l0"):
        estimate_explanations(net, linear.x, linear.y, ThreatModel.box("l0", 2), device="cpu")


def test_half_of_the_open_samples_are_left_with_four_times_the_work():
    assert heavy_tail(32, 32) == pytest.approx(32)
    # 32 for all, 1/2 of them for 96 more at most: between 32 + 48 and 32 + 96
    assert 80 < heavy_tail(32, 128) < 128
    assert heavy_tail(32, 1 << 20) < 1 << 15


def test_the_peak_is_measured_afresh():
    memory.reset_peak(CPU)
    before = memory.peak(CPU)
    held = torch.ones(64 << 18)
    assert memory.peak(CPU) - before > 60 << 20
    assert memory.in_use(CPU) > held.nbytes
    del held
    memory.reset_peak(CPU)
    assert memory.peak(CPU) < before + (48 << 20)

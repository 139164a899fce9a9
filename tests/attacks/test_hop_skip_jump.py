"""HopSkipJump: classes alone, legal, order free, exact about queries, as near as it should come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import Case, check_inside, check_same
from torch import nn

import attacks.hop_skip_jump
from attacks.classifier import TiledClassifier
from attacks.driver import distances
from attacks.errors import AttackError
from attacks.hop_skip_jump import HopSkipJump, HopSkipJumpConfig, hop_skip_jump
from attacks.threat import ThreatModel

TWO_NORMS = ("linf", "l2")


def run(case: Case, queries: int = 45, batch: int = 8, minimal: bool = False, restarts: int = 1):
    config = HopSkipJumpConfig(queries, restarts, batch)
    classifier = TiledClassifier(case.module, case.tiles)
    return hop_skip_jump(
        classifier, case.x, case.y, case.ids, case.threat, config, case.seed, minimal=minimal
    )


def far(case: Case, **changes) -> Case:
    return replace(case, threat=replace(case.threat, eps=1e3), **changes)


def distance(case: Case, queries: int, batch: int) -> torch.Tensor:
    result = run(case, queries, batch, minimal=True)
    assert torch.equal(result.forwards, torch.full_like(result.forwards, queries))
    return torch.where(result.found, distances(case.x, result.adversarial, case.threat), torch.inf)


def linear(norm) -> tuple[Case, torch.Tensor]:
    """Two classes, a box that is out of the way, and the exact distances."""
    rng, d = np.random.default_rng(2), 12
    weight = rng.normal(size=(2, d))
    module = nn.Linear(d, 2, bias=False).eval().requires_grad_(False)
    module.weight.copy_(torch.tensor(weight))
    x = torch.tensor(rng.normal(size=(32, d))).float()
    logits = TiledClassifier(module).logits(x)
    pull = module.weight[1].double() - module.weight[0].double()
    exact = (x.double() @ pull).abs() / torch.linalg.vector_norm(pull, 1 if norm == "linf" else 2)
    threat = ThreatModel.box(norm, 1e3, -8.0, 8.0)
    return Case(module, x, logits.argmax(1), torch.arange(32), threat), exact


def check_near(norm) -> None:
    case, exact = linear(norm)
    ratio = distance(case, 300, 20) / exact
    assert (ratio >= 1 - 1e-6).all(), "nearer than the nearest"
    assert ratio.median() < 1.12
    assert ratio.max() < 1.6


@pytest.mark.parametrize("norm", TWO_NORMS)
def test_on_a_linear_model_it_comes_near_the_minimal_distance(norm):
    check_near(norm)


def test_noise_that_stands_still_is_seen(monkeypatch):
    monkeypatch.setattr(attacks.hop_skip_jump, "advance", lambda keys, numbers: keys)
    with pytest.raises(AssertionError):
        check_near("l2")


def test_the_wrong_direction_is_seen(monkeypatch):
    direction = HopSkipJump._direction
    monkeypatch.setattr(HopSkipJump, "_direction", lambda self, s: -direction(self, s))
    with pytest.raises(AssertionError):
        check_near("l2")


def test_it_comes_as_near_as_foolbox_with_no_more_queries():
    foolbox = pytest.importorskip("foolbox")
    case, asked = far(Case.make("cnn-small", "l2", n=32)), []

    class Counted(nn.Module):
        def forward(self, x):
            asked.append(len(x))
            return case.module(x)

    model = foolbox.PyTorchModel(Counted().eval(), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.HopSkipJumpAttack(steps=2, constraint="l2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = attack(model, case.x, case.y, epsilons=None)[1]
    queries = sum(asked) // 32
    ours = distance(case, queries, 100).median()
    assert ours <= 1.1 * distances(case.x, theirs, case.threat).median()


@pytest.mark.parametrize("norm", TWO_NORMS)
def test_it_looks_at_classes_alone(norm):
    """Logits that say nothing but the class lead to the very same points."""

    class Classes(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot(case.module(x).argmax(1), 3).float()

    case = Case.make("mlp", norm, n=33)
    told = run(replace(case, module=Classes().eval()))
    check_same(run(case), told, but=("seconds", "lowest"))
    assert 0 < int(told.found.sum()) < 33


def cases(norm):
    image = Case.make("cnn-small", norm, n=33)
    image = replace(image, threat=replace(image.threat, eps=8 * image.threat.eps))
    table = Case.make("mlp", norm, n=33)
    held = torch.zeros(9, dtype=torch.bool)
    held[[0, 4]] = True
    unit = torch.linspace(0.5, 3.0, 9)
    tabular = ThreatModel.box(norm, table.threat.eps, -0.5, torch.full((9,), 1.25), held, unit)
    two = nn.Linear(9, 2, bias=False).eval().requires_grad_(False)
    two.weight.copy_(torch.randn(2, 9, generator=torch.Generator().manual_seed(0)))
    y = TiledClassifier(two).logits(table.x).argmax(1)
    return {
        "image": image,
        "tabular": replace(table, threat=tabular),
        "two-classes": replace(
            table, module=two, y=y, threat=replace(tabular, eps=4 * tabular.eps)
        ),
    }


@pytest.mark.parametrize(
    ("kind", "minimal"),
    [("image", False), ("tabular", False), ("tabular", True), ("two-classes", True)],
)
@pytest.mark.parametrize("norm", TWO_NORMS)
def test_points_are_legal_and_verdicts_belong_to_samples(norm, kind, minimal, monkeypatch):
    case, move = cases(norm)[kind], HopSkipJump.move

    def spy(self, lanes, *more):
        check_inside(replace(case.threat, eps=1e3), lanes.ball.x, lanes.state["point"])
        return move(self, lanes, *more)

    with monkeypatch.context() as patch:
        patch.setattr(HopSkipJump, "move", spy)
        result = run(case, minimal=minimal)
    check_inside(case.threat, case.x, result.adversarial)
    wrong = TiledClassifier(case.module).logits(result.adversarial).argmax(1) != case.y
    assert torch.equal(wrong, result.found)
    assert 0 < int(result.found.sum()) < 33
    spent = torch.where(result.found & (not minimal), result.iteration + 1, 45)
    assert torch.equal(result.forwards, spent)
    rows = torch.randperm(33, generator=torch.Generator().manual_seed(1))[:20]
    check_same(result, run(case.rows(rows), minimal=minimal), rows)
    check_same(result, run(replace(case, tiles=(32, 64)), minimal=minimal))


def test_noise_that_belongs_to_places_is_seen(monkeypatch):
    case = cases("l2")["image"]
    whole, real = run(case), attacks.hop_skip_jump.gaussian
    monkeypatch.setattr(
        attacks.hop_skip_jump,
        "gaussian",
        lambda keys, count: real(torch.arange(len(keys)) * 7919 + keys[0], count),
    )
    rows = torch.arange(32, 9, -1)
    with pytest.raises(AssertionError):
        check_same(whole, run(case.rows(rows)), rows)


def test_a_model_that_is_always_right_is_asked_to_the_end():
    case = far(Case.make("mlp", "l2", n=5))
    case.module[-1].weight.zero_()
    case.module[-1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    result = run(replace(case, y=torch.ones(5, dtype=torch.int64)), queries=9, restarts=2)
    assert not result.found.any()
    assert torch.equal(result.forwards, torch.full((5,), 18))


@pytest.mark.parametrize("minimal", [False, True])
def test_no_eps_no_find(minimal):
    case = Case.make("mlp", "l2", n=20)
    result = run(replace(case, threat=ThreatModel.box("l2", 0.0)), minimal=minimal)
    assert not result.found.any()
    assert torch.equal(result.adversarial, case.x)


@pytest.mark.parametrize("wrong", [{"queries": 1}, {"restarts": 0}, {"batch": 0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(AttackError):
        HopSkipJumpConfig(**wrong)


def test_there_is_no_l1():
    with pytest.raises(AttackError, match="l1"):
        run(Case.make("mlp", "l1", n=2))

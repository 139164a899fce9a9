"""Attacks of foolbox: their strength, our rules."""

from __future__ import annotations

import builtins
import inspect
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import NORMS, Case, check_inside, check_same, reach
from torch import Tensor, nn

import attacks.foolbox_adapter as adapter
from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.errors import AttackError
from attacks.foolbox_adapter import foolbox_attack
from attacks.foolbox_config import FoolboxConfig, foolbox_attacks, in_company
from attacks.pgd import PGDConfig
from attacks.result import AttackResult
from attacks.threat import ThreatModel

foolbox = pytest.importorskip("foolbox")

ATTACKS = {
    "LinfPGD": ("linf", {"steps": 10, "rel_stepsize": 0.2}),
    "LinfDeepFoolAttack": ("linf", {"steps": 20}),
    "L2CarliniWagnerAttack": (
        "l2",
        {"steps": 20, "binary_search_steps": 3, "stepsize": 0.05, "initial_const": 1.0},
    ),
    "BoundaryAttack": ("l2", {"steps": 20}),
    "SparseL1DescentAttack": ("l1", {"steps": 10}),
}
SHARE = {  # of what PGD breaks, at least
    "LinfPGD": 0.9,
    "LinfDeepFoolAttack": 0.9,
    "L2CarliniWagnerAttack": 0.8,
    "BoundaryAttack": 0.15,  # 20 steps of 25000
    "SparseL1DescentAttack": 0.75,
}
FOUND = ("seconds", "forwards", "backwards", "iteration")


def run(case: Case, name: str, **more: object) -> AttackResult:
    config = FoolboxConfig(name, ATTACKS[name][1])
    classifier = TiledClassifier(case.module)
    return foolbox_attack(
        classifier, case.x, case.y, case.ids, case.threat, config, case.seed, **more
    )


def check_found(case: Case, result: AttackResult) -> None:
    """What counts is legal and misclassified, the rest is untouched."""
    check_inside(case.threat, case.x, result.adversarial)
    judged = recheck(
        TiledClassifier(case.module), None, case.x, result.adversarial, case.y, case.threat
    )
    assert torch.equal(judged.broken, result.found)
    assert torch.equal(result.lowest < 0, result.found)
    assert torch.equal(result.adversarial[~result.found], case.x[~result.found])
    assert torch.equal(result.restart >= 0, result.found)


def check_company(case: Case, name: str) -> None:
    """A shuffled part gives the rows of the whole."""
    rows = torch.randperm(len(case.x), generator=torch.Generator().manual_seed(0))[:17]
    check_same(run(case, name), run(case.rows(rows), name), rows, FOUND)


@pytest.mark.parametrize("name", ATTACKS)
def test_as_strong_as_it_should_be(name):
    case = Case.make("mlp", ATTACKS[name][0], n=32)
    result = run(case, name)
    check_found(case, result)
    pgd = int(
        replace(case, config=PGDConfig(steps=40, restarts=2, loss="margin")).run().found.sum()
    )
    assert SHARE[name] * pgd <= int(result.found.sum()) < 32
    assert bool(result.backwards.any()) == (name != "BoundaryAttack")


@pytest.mark.parametrize("name", ["LinfPGD", "BoundaryAttack", "SparseL1DescentAttack"])
def test_the_company_of_a_sample_changes_nothing(name):
    check_company(Case.make("mlp", ATTACKS[name][0], n=40), name)


CHEAP = {"steps": 4, "binary_search_steps": 2, "repeats": 3, "directions": 3, "max_queries": 40}


def few_steps(name: str) -> dict[str, object]:
    known = inspect.signature(getattr(foolbox.attacks, name)).parameters
    return {key: value for key, value in CHEAP.items() if key in known}


@pytest.mark.parametrize("name", [name for name in foolbox_attacks() if not in_company(name)])
def test_what_is_said_to_look_at_each_sample_alone_does(name):
    norm = next(norm for norm in NORMS if name in foolbox_attacks(norm))
    case = Case.make("cnn-small", norm, n=40)
    config = FoolboxConfig(name, few_steps(name))
    whole, part = (
        foolbox_attack(TiledClassifier(c.module), c.x, c.y, c.ids, c.threat, config, 3)
        for c in (case, case.rows(torch.arange(39, 16, -1)))
    )
    check_same(whole, part, torch.arange(39, 16, -1), FOUND)


@pytest.mark.parametrize("name", ["HopSkipJumpAttack", "PointwiseAttack", "GenAttack"])
def test_what_lets_samples_influence_each_other_is_known(name):
    assert in_company(name)


def test_images():
    case = Case.make("cnn-small", "linf", n=32)
    result = run(case, "LinfPGD")
    check_found(case, result)
    assert 0 < int(result.found.sum()) < 32
    check_company(case, "LinfPGD")


def test_the_verdicts_and_passes_are_those_of_foolbox():
    case = Case.make("mlp", "linf", n=32)
    options = {"steps": 7, "random_start": False}
    classifier = TiledClassifier(case.module)
    config = FoolboxConfig("foolbox:LinfPGD", options)
    ours = foolbox_attack(classifier, case.x, case.y, case.ids, case.threat, config, 0)
    model = foolbox.PyTorchModel(case.module, (0, 1), "cpu")
    _, _, theirs = foolbox.attacks.LinfPGD(**options)(
        model, case.x, case.y, epsilons=case.threat.eps
    )
    assert torch.equal(ours.found, theirs)
    assert 0 < int(theirs.sum()) < 32
    assert (ours.forwards == 1 + 7 + 1).all()
    assert (ours.backwards == 7).all()
    assert (classifier.work.forwards, classifier.work.backwards) == (9 * 32, 7 * 32)


def test_restarts_take_the_samples_that_are_left():
    case = Case.make("mlp", "linf", n=50)
    once, thrice = (
        foolbox_attack(
            TiledClassifier(case.module),
            case.x,
            case.y,
            case.ids,
            case.threat,
            FoolboxConfig("LinfAdditiveUniformNoiseAttack", restarts=restarts),
            0,
        )
        for restarts in (1, 3)
    )
    assert (thrice.found | ~once.found).all()
    assert int(thrice.found.sum()) > int(once.found.sum())
    assert (thrice.forwards[~thrice.found] == 1 + 3).all()  # noise needs no pass but the judge's
    assert set(thrice.restart[thrice.found].tolist()) == {0, 1, 2}


# threat models -----------------------------------------------------------------------------------


def linear(slope: Tensor, bias: float) -> nn.Module:
    """Two classes; the first where `slope . x < bias`."""
    module = nn.Linear(len(slope), 2).eval().requires_grad_(False)
    module.weight.copy_(torch.stack([torch.zeros_like(slope), slope]))
    module.bias.copy_(torch.tensor([bias, 0.0]))
    return module


BOXES = {
    "unit": (0.0, 1.0, None),
    "wide": (-1.0, 2.0, None),
    "by-feature": (torch.tensor([-3.0, 10.0, 0.0, 5.0]), torch.tensor([3.0, 18.0, 1.5, 7.0]), None),
    "scaled": (
        torch.tensor([-3.0, 10.0, 0.0, 5.0]),
        torch.tensor([3.0, 18.0, 1.5, 7.0]),
        torch.tensor([6.0, 8.0, 1.5, 2.0]),
    ),
}


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", ["LinfDeepFoolAttack", "L2DeepFoolAttack"])
def test_deepfool_finds_the_minimal_distance_in_any_box(name, box):
    """On a linear model it is exact but for its overshoot of 2%.

    The last feature may not move, and is such that all samples have the same distance.
    """
    norm = "linf" if "Linf" in name else "l2"
    lower, upper, scale = BOXES[box]
    lower, upper = (torch.as_tensor(end).expand(4).contiguous() for end in (lower, upper))
    middle, span = (lower + upper) / 2, upper - lower
    unit = torch.ones(4) if scale is None else scale
    slope = torch.tensor([1.0, -0.6, 0.8, 5.0]) / unit
    held = torch.arange(4) == 3
    away = 0.1 * span * (torch.rand(20, 4, generator=torch.Generator().manual_seed(0)) - 0.5)
    exact = 0.1 * float((span / unit)[:3].min())  # no side of the box is met
    pull = (slope * unit)[:3].double().abs().numpy()
    gap = reach(norm, pull, np.full(3, np.inf if norm == "linf" else 1e9), exact)
    away[:, 3] = -(gap + away[:, :3] @ slope[:3]) / slope[3]
    x = middle + away
    classifier, y = TiledClassifier(linear(slope, float(slope @ middle))), torch.zeros(20).long()
    assert (classifier.logits(x).argmax(1) == 0).all()
    found = []
    for factor in (0.97, 1.04):
        threat = ThreatModel.box(norm, factor * exact, lower, upper, held, scale)
        config = FoolboxConfig(name)
        result = foolbox_attack(classifier, x, y, torch.arange(20), threat, config, 0)
        check_inside(threat, x, result.adversarial)
        found.append(int(result.found.sum()))
    assert found == [0, 20]


@pytest.mark.parametrize("name", ATTACKS)
def test_legal_in_a_strange_box(name):
    """Box [-1, 2], samples at its ends, features that may not move, all attacks."""
    case = Case.make("mlp", ATTACKS[name][0], n=32)
    x = (3.0 * case.x - 1.0).clamp(-0.9, 1.9)
    x = torch.where(x <= -0.9, -1.0, torch.where(x >= 1.9, 2.0, x))
    mask = torch.arange(9) % 3 == 0
    threat = ThreatModel.box(case.threat.norm, 3 * case.threat.eps, -1.0, 2.0, immutable=mask)
    y = TiledClassifier(case.module).logits(x).argmax(1)
    case = replace(case, x=x, y=y, threat=threat)
    result = run(case, name)
    check_found(case, result)
    assert name == "BoundaryAttack" or bool(result.found.any())


def test_nothing_to_search_costs_one_pass():
    case = Case.make("mlp", "linf", n=8)
    wrong = (case.y + 1) % 3
    y = torch.where(torch.arange(8) < 3, wrong, case.y)
    case = replace(case, y=y, threat=replace(case.threat, eps=0.0))
    result = run(case, "LinfPGD")
    assert result.found.tolist() == [True] * 3 + [False] * 5
    assert torch.equal(result.adversarial, case.x)
    assert (result.forwards == 1).all()
    assert len(run(case.rows(torch.arange(0)), "LinfPGD").found) == 0


def test_what_float64_refuses_does_not_count():
    case = Case.make("mlp", "linf", n=32)
    plain = run(case, "LinfPGD")
    none = run(case, "LinfPGD", confirm=lambda points, y: torch.zeros_like(y, dtype=torch.bool))
    assert not none.found.any()
    assert torch.equal(none.rounding, plain.found)


def test_the_callers_world_is_left_alone():
    case = Case.make("mlp", "l2", n=32)
    case.module.requires_grad_(True)
    torch.manual_seed(1)
    np.random.seed(1)
    wanted = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1)
    np.random.seed(1)
    finished = []
    run(case, "L2CarliniWagnerAttack", progress=lambda over, broken: finished.append(over))
    assert torch.equal(torch.rand(3), wanted[0])
    assert (np.random.rand(3) == wanted[1]).all()
    assert all(p.grad is None and p.requires_grad for p in case.module.parameters())
    assert finished == [32]


# settings ----------------------------------------------------------------------------------------


def test_names():
    assert {"LinfPGD", "LinfDeepFoolAttack"} <= set(foolbox_attacks("linf"))
    assert "L2DeepFoolAttack" not in foolbox_attacks("linf")
    assert {"L1FMNAttack", "EADAttack"} <= set(foolbox_attacks("l1"))
    assert not {"L0FMNAttack", "SpatialAttack", "DatasetAttack"} & set(foolbox_attacks())
    assert "HopSkipJumpAttack" not in foolbox_attacks("l1")
    assert FoolboxConfig("HopSkipJumpAttack").build("linf").constraint == "linf"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"name": "LinfDeepFol"}, "did you mean 'LinfDeepFoolAttack'"),
        ({"name": "zzz"}, "known: AdamPGD"),
        ({"name": "DatasetAttack"}, "no attack 'DatasetAttack'"),
        ({"name": "LinfPGD", "options": {"step": 3}}, "did you mean 'steps'"),
        ({"name": "LinfPGD", "options": {"steps": "3"}}, "steps is '3', it must be int"),
        ({"name": "LinfPGD", "options": {"steps": True}}, "steps is True"),
        ({"name": "BoundaryAttack", "options": {"tensorboard": "here"}}, "no option"),
        ({"name": "EADAttack", "options": {"decision_rule": "L2"}}, "decision_rule is 'L2'"),
        ({"name": "VirtualAdversarialAttack"}, "needs the option 'steps'"),
        ({"name": "LinfPGD", "restarts": 0}, "restarts is 0"),
    ],
)
def test_wrong_settings(settings, hint):
    with pytest.raises(AttackError, match=hint) as caught:
        FoolboxConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("L2DeepFoolAttack", {}, "an attack in l2, the threat model is in linf.*LinfDeepFool"),
        ("L0FMNAttack", {}, "an attack in l0"),
        ("HopSkipJumpAttack", {"constraint": "l2"}, "an attack in l2"),
        ("LinearSearchBlendedUniformNoiseAttack", {"directions": 0}, "directions is 0, it must be"),
        ("GaussianBlurAttack", {}, r"failed on samples of shape \(9,\)"),
    ],
)
def test_attacks_that_cannot_run(name, options, hint):
    case = Case.make("mlp", "linf", n=8)
    with pytest.raises(AttackError, match=hint) as caught:
        foolbox_attack(
            TiledClassifier(case.module),
            case.x,
            case.y,
            case.ids,
            case.threat,
            FoolboxConfig(name, options),
            0,
        )
    assert "\n" not in str(caught.value)


def test_foolbox_missing(monkeypatch):
    importer = builtins.__import__

    def refuse(name: str, *more: object) -> object:
        if name.split(".")[0] == "foolbox":
            raise ModuleNotFoundError(f"No module named '{name}'")
        return importer(name, *more)

    for name in [name for name in sys.modules if name.split(".")[0] == "foolbox"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(AttackError, match="pip install 'foolbox") as caught:
        FoolboxConfig("LinfPGD")
    assert "\n" not in str(caught.value)


# planted bugs ------------------------------------------------------------------------------------


def test_a_missing_projection_is_seen(monkeypatch):
    case = Case.make("mlp", "l2", n=32)
    monkeypatch.setattr(Ball, "project", lambda ball, points: points)
    with pytest.raises(AssertionError):
        check_found(case, run(case, "L2CarliniWagnerAttack"))


def test_noise_by_place_is_seen(monkeypatch):
    case, keys = Case.make("mlp", "linf", n=40), adapter.stream_keys
    monkeypatch.setattr(
        adapter, "stream_keys", lambda seed, name, ids, run: keys(seed, name, range(len(ids)), run)
    )
    with pytest.raises(AssertionError):
        check_company(case, "LinfPGD")


def test_noise_of_torch_is_seen(monkeypatch):
    """Foolbox's own noise, which belongs to a batch."""
    case = Case.make("mlp", "linf", n=40)
    monkeypatch.setattr(adapter, "row_tensor", lambda rows, shared, raw: raw.detach())
    monkeypatch.setattr(adapter.typing, "cast", lambda kind, value: value)
    monkeypatch.setattr(Tensor, "raw", property(lambda raw: raw), raising=False)
    with pytest.raises(AssertionError):
        check_company(case, "LinfPGD")


def test_a_generator_not_given_back_is_seen(monkeypatch):
    @contextmanager
    def left_open(module: nn.Module, seed: int, device: torch.device):
        with torch.enable_grad(), nullcontext():
            torch.manual_seed(seed)
            yield

    monkeypatch.setattr(adapter, "left_alone", left_open)
    with pytest.raises(AssertionError):
        test_the_callers_world_is_left_alone()

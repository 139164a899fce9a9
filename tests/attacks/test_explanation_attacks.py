"""Attacks on explanations: finds are legal and real, and do not depend on company or order."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from attack_checks import check_inside
from bending_checks import (
    ALLOWED,
    CASES,
    Branching,
    Case,
    N,
    case,
    check_alone,
    check_honest,
    check_same,
    judge,
    model_of,
)
from torch import nn

from attacks.driver import in_float64
from attacks.errors import AttackError, ClassifierError
from attacks.explanation_attacks import (
    ExplanationAttackConfig,
    ExplanationAttackResult,
    attack_explanations,
    recheck_explanations,
)
from attacks.explanation_measures import Criterion
from attacks.softplus import SoftplusForReLU
from attacks.threat import ThreatModel, WeightBudget


@cache
def whole(allowed: str) -> tuple[Case, ExplanationAttackResult]:
    case = Case.zoo(allowed)
    return case, case.run()


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param(a, marks=pytest.mark.slow) if a in ("joint", "weights", "l1") else a
        for a in ALLOWED
    ],
)
def test_any_rows_in_any_order_are_rows_of_the_whole(allowed: str) -> None:
    case, result = whole(allowed)
    assert (result.distance > 0).all()
    for rows in (torch.randperm(40)[:11], torch.tensor([39]), torch.arange(40).flip(0)):
        check_same(result, case.rows(rows).run(), rows)


@pytest.mark.parametrize(
    "allowed",
    [pytest.param(a, marks=pytest.mark.slow) if a in ("joint", "weights") else a for a in ALLOWED],
)
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


@pytest.mark.parametrize("name", CASES)
def test_finds_are_honest(name: str) -> None:
    check_honest(CASES[name]())
    check_alone(CASES[name]())


@pytest.mark.parametrize("eps", [0.0, 1e-9])
def test_where_nothing_can_move_nothing_is_found(eps: float) -> None:
    nothing = case(ThreatModel.box("linf", eps), WeightBudget(0.0))
    result = nothing.run()
    assert (result.distance == 0).all() if eps == 0 else (result.distance < 1e-3).all()
    assert not result.found.any() or eps > 0


def test_models_that_cannot_be_batched_go_one_by_one() -> None:
    one = CASES["joint"]()
    together = one.run()
    branching = model_of(Branching)
    apart = replace(one, model=branching).run()
    assert torch.allclose(together.distance, apart.distance, rtol=0.05)
    assert judge(replace(one, model=branching), apart).legal.all()


def test_a_sample_is_left_alone_once_it_is_bent() -> None:
    one = replace(CASES["linf"](), criterion=Criterion("l2", 0.5))
    full = one.run()
    stopped = replace(one, config=replace(one.config, stop=True)).run()
    assert torch.equal(full.found, stopped.found)
    assert full.found.any()
    assert (stopped.forwards <= full.forwards).all()
    assert (stopped.forwards < full.forwards)[full.found].all()
    assert torch.equal(stopped.forwards[~full.found], full.forwards[~full.found])
    assert (stopped.distance > 0.5)[full.found].all()


def test_features_that_are_among_the_first_already_are_found_at_no_cost() -> None:
    one = CASES["linf"]()
    one = replace(one, criterion=Criterion("into-top-k", 0.0, k=6, features=(1, 2)))
    result = one.run()
    assert (result.distance == 2).all()
    assert result.found.all()
    assert (result.restart == -1).all()
    assert torch.equal(result.adversarial, one.x)


def test_progress_is_told() -> None:
    told = []
    one = CASES["weights"]()
    attack_explanations(
        one.model,
        one.x,
        one.target,
        one.ids,
        None,
        one.explanation,
        one.criterion,
        ExplanationAttackConfig(steps=1),
        0,
        budget=one.budget,
        progress=lambda done, bent: told.append((done, bent)),
    )
    assert [done for done, _ in told] == [8, N]


def test_no_samples() -> None:
    one = CASES["linf"]().rows(torch.arange(0))
    assert len(one.run().distance) == 0


def test_the_surrogate_is_softplus_for_modules_and_functions() -> None:
    z = torch.linspace(-2, 2, 41)
    softplus = nn.functional.softplus(z, beta=5.0)
    with SoftplusForReLU(5.0) as mode:
        for found in (nn.ReLU()(z), z.relu(), torch.relu(z), nn.functional.relu(input=z)):
            assert torch.equal(found, softplus)
        leaky = nn.LeakyReLU(0.2)(z)
        assert torch.equal(torch.tanh(z), z.tanh())
    assert mode.met == 5
    torch.testing.assert_close(leaky, 0.2 * z + 0.8 * softplus)
    assert torch.equal(nn.ReLU()(z), z.clamp_min(0))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps is 0 and restarts 1: both must be at least 1"),
        ({"restarts": 0}, "restarts 0"),
        ({"step_size": 0.0}, "step_size is 0.0: it must be positive and finite"),
        ({"surrogate": float("nan")}, "surrogate is nan"),
        ({"aim": "entropy"}, "no aim 'entropy': use one of measure, mass-centre"),
        ({"keep_logits": -1.0}, "keep_logits is -1.0"),
    ],
)
def test_settings_that_are_not_legal(settings: dict[str, object], says: str) -> None:
    with pytest.raises(AttackError, match=says):
        ExplanationAttackConfig(**settings)  # type: ignore[arg-type]


def test_calls_that_do_not_fit() -> None:
    one = CASES["linf"]()
    with pytest.raises(AttackError, match="nothing to attack: give a threat model or a weight"):
        replace(one, threat=None).run()
    with pytest.raises(AttackError, match="10 samples need as many explained classes, not 9"):
        replace(one, target=one.target[:9]).run()
    with pytest.raises(AttackError, match="an explanation has 6 entries"):
        replace(one, criterion=Criterion("top-k", k=7)).run()
    with pytest.raises(AttackError, match="lower has shape"):
        replace(one, threat=ThreatModel.box("linf", 0.1, torch.zeros(5), torch.ones(5))).run()
    with pytest.raises(ClassifierError, match=r"model\.eval"):
        replace(one, model=copy.deepcopy(one.model).train()).run()
    with pytest.raises(ClassifierError, match="logits of shape"):
        replace(one, model=nn.Linear(6, 1).eval()).run()

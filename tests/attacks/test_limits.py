"""Limits of passes and time: none gets one pass more, and what is found within them is the same."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from attack_checks import Case, check_inside, check_same
from test_registry import CASES
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.foolbox_config import FoolboxConfig
from attacks.foolbox_model import Watched
from attacks.halving import HalvingConfig
from attacks.lanes import Lanes
from attacks.nearest import distance_of
from attacks.pgd import PGDConfig
from attacks.problem import Limits
from attacks.registry import AttackConfig, kind_of
from attacks.result import AttackResult

BUDGETS = (0, 1, 7, 50)
OTHERS: list[tuple[AttackConfig, str]] = [
    (FoolboxConfig("LinfPGD", {"steps": 20, "rel_stepsize": 0.2}), "linf"),
    (FoolboxConfig("LinfPGD", {"steps": 10}, restarts=3), "linf"),
    (FoolboxConfig("GenAttack", {"steps": 8, "population": 4}), "linf"),
    (FoolboxConfig("BoundaryAttack", {"steps": 30}), "l2"),
    (FoolboxConfig("HopSkipJumpAttack", {"steps": 1, "initial_gradient_eval_steps": 5}), "l2"),
    (FoolboxConfig("L2CarliniWagnerAttack", {"steps": 20, "binary_search_steps": 3}), "l2"),
]
FIRST = {kind_of(config).name: (config, norm) for config, norm in reversed(CASES)}


class Counted(nn.Module):
    """An independent count of the inputs that a model is asked about."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.inputs = module, 0

    def forward(self, x: Tensor) -> Tensor:
        self.inputs += len(x)
        return self.module(x)


def limited(case: Case, queries: Tensor, module: nn.Module | None = None) -> AttackResult:
    clean = TiledClassifier(case.module).logits(case.x)
    return kind_of(case.config).run(
        TiledClassifier(case.module if module is None else module, case.tiles, case.invariant),
        *(case.x, case.y, case.ids, case.threat, case.config, case.seed),
        limits=Limits(clean, queries),
    )


def make(config: AttackConfig, norm: str, n: int) -> Case:
    return replace(Case.make("cnn-small", norm, n=n), config=config)


def check_counted(case: Case) -> None:
    """Sample by sample, in tiles of one row: no padding, so every input counts."""
    for row in range(len(case.x)):
        one = replace(case.rows(torch.tensor([row])), tiles=(1,))
        for most in BUDGETS:
            module = Counted(one.module).eval()
            result = limited(one, torch.tensor([most]), module)
            assert module.inputs <= most, f"{module.inputs} passes of {most}"
            assert module.inputs == int(result.forwards), "the books are wrong"
            assert int(result.backwards) <= int(result.forwards)
            assert result.lowest.isfinite().all()
            check_inside(one.threat, one.x, result.adversarial)


@pytest.mark.parametrize(("config", "norm"), [*FIRST.values(), *OTHERS], ids=str)
def test_no_sample_gets_a_pass_more(config, norm):
    check_counted(make(config, norm, 3))


@pytest.mark.parametrize(("config", "norm"), FIRST.values(), ids=str)
def test_what_is_found_in_time_is_the_same(config, norm):
    """For every sample its own limit, which has no influence on the others."""
    case = make(config, norm, 60)
    free = case.run()
    queries = torch.randint(0, 60, (60,), generator=torch.Generator().manual_seed(2))
    result = limited(case, queries)
    assert (result.forwards <= queries).all()
    if not isinstance(config, FoolboxConfig):  # a tile of it may fall apart in another way
        if kind_of(config).minimal == "always":  # it goes on after a find, and only comes nearer
            assert torch.equal(result.forwards, torch.minimum(free.forwards, queries))
            assert 0 < int(result.found.sum()) < int(free.found.sum())
            assert free.found[result.found].all()
            ours, whole = (distance_of(r, case.x, case.threat) for r in (result, free))
            assert (ours >= whole)[result.found].all()
            enough = free.forwards <= queries
            assert torch.equal(result.adversarial[enough], free.adversarial[enough])
        else:
            assert torch.equal(result.found, free.found & (free.forwards <= queries))
            assert torch.equal(result.adversarial[result.found], free.adversarial[result.found])
        rows = torch.randperm(60, generator=torch.Generator().manual_seed(3))[:23]
        check_same(result, limited(case.rows(rows), queries[rows]), rows)


@pytest.mark.parametrize(("config", "norm"), [*FIRST.values(), OTHERS[0], OTHERS[3]], ids=str)
def test_enough_changes_nothing(config, norm):
    case = make(config, norm, 40)
    check_same(case.run(), limited(case, torch.full((40,), 10**6)))


def test_what_foolbox_met_counts_when_its_passes_are_over():
    """It names nothing before its end: the nearest find so far is taken."""
    case = make(FoolboxConfig("L2CarliniWagnerAttack", {"steps": 1000}), "l2", 40)
    result = limited(case, torch.full((40,), 40))
    assert bool(result.found.any())
    assert (result.forwards <= 40).all()
    check_inside(case.threat, case.x, result.adversarial)


class Soon(Limits):
    """Time that is over after a few looks at the clock."""

    looks = 0

    @property
    def late(self) -> bool:
        Soon.looks += 1
        return Soon.looks > 4

    def left(self, rows: Tensor, forwards: Tensor) -> Soon:
        return Soon(self.clean[rows])


@pytest.mark.parametrize(("config", "norm"), [*FIRST.values(), OTHERS[0]], ids=str)
@pytest.mark.parametrize("begun", [False, True])
def test_time_ends_a_search_where_it_is(config, norm, begun):
    case = make(config, norm, 60)
    clean, Soon.looks = TiledClassifier(case.module).logits(case.x), 0
    limits = Soon(clean) if begun else Limits(clean, None, time.perf_counter())
    given = (case.x, case.y, case.ids, case.threat, config, case.seed)
    result = kind_of(config).run(TiledClassifier(case.module), *given, limits=limits)
    assert bool(result.timeout.any())
    if kind_of(config).minimal != "always":  # which may have a find, and not the nearest yet
        assert not (result.timeout & result.found).any()
    assert result.lowest.isfinite().all()
    if not begun and not isinstance(config, FoolboxConfig):
        assert result.timeout.all()
        assert not result.forwards.any()


# planted bugs ------------------------------------------------------------------------------------


def test_a_pass_too_many_is_seen(monkeypatch):
    left = Limits.left
    case = make(HalvingConfig(steps=2), "linf", 2)
    monkeypatch.setattr(Limits, "left", lambda limits, rows, spent: left(limits, rows, 0 * spent))
    with pytest.raises(AssertionError, match=r"passes of|books"):
        check_counted(case)


def test_a_clean_pass_aside_is_seen(monkeypatch):
    gain = Lanes.gain

    def again(lanes: Lanes, *more: object) -> Tensor:
        lanes.problem.classifier.logits(lanes.ball.x)
        return gain(lanes, *more)

    monkeypatch.setattr(Lanes, "gain", again)
    case = make(*FIRST["fmn"], 2)
    with pytest.raises(AssertionError):
        check_counted(case)


def test_passes_of_foolbox_that_are_not_counted_are_seen(monkeypatch):
    monkeypatch.setattr(Watched, "open", property(lambda watched: watched.own))
    with pytest.raises(AssertionError):
        check_counted(make(OTHERS[0][0], "linf", 3))


def test_a_limit_that_hangs_on_others_is_seen(monkeypatch):
    left = Limits.left
    monkeypatch.setattr(
        Limits,
        "left",
        lambda limits, rows, spent: left(limits, rows, spent + len(rows)),
    )
    with pytest.raises(AssertionError):
        test_what_is_found_in_time_is_the_same(HalvingConfig(steps=2), "linf")


def test_a_search_that_ends_early_without_need_is_seen(monkeypatch):
    monkeypatch.setattr(Limits, "late", property(lambda limits: True))
    with pytest.raises(AssertionError):
        test_enough_changes_nothing(PGDConfig(steps=4, restarts=2), "linf")

"""Patience: a search ends where its own margin no longer falls, and for no other reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from attack_checks import Case, check_order_free, check_same
from torch import Tensor

import attacks.halving
from attacks.errors import AttackError
from attacks.halving import HalvingConfig
from attacks.lanes import Lanes, Method, drive
from attacks.losses import margin
from attacks.problem import Problem
from attacks.registry import from_plain, to_plain
from attacks.result import AttackResult
from attacks.suites import AUTO

FULL = HalvingConfig(steps=3)
SHORT = replace(FULL, patience=0.3)


def case_of(config: HalvingConfig, **more: object) -> Case:
    return replace(Case.make("cnn-small", "linf", n=70), config=config, **more)


def margins_met(
    case: Case, patch: pytest.MonkeyPatch
) -> tuple[AttackResult, dict[int, list[float]]]:
    """What a case finds, and the margin of every point that it looks at, by sample id."""
    met: dict[int, list[float]] = {}

    def driven(problem: Problem, method: Method) -> AttackResult:
        move: Callable[..., Tensor | None] = method.move

        def noted(lanes: Lanes, logits: Tensor, *more: Tensor) -> Tensor | None:
            gaps, ids = margin(logits, lanes.y), problem.ids[lanes.sample]
            for row in lanes.live.nonzero()[:, 0].tolist():
                met.setdefault(int(ids[row]), []).append(float(gaps[row]))
            return move(lanes, logits, *more)

        method.move = noted
        return drive(problem, method)

    with patch.context() as inner:
        inner.setattr(attacks.halving, "drive", driven)
        return case.run(), met


def last_pass(gaps: list[float], most: int) -> int:
    """Number of the pass at which the rule ends a search."""
    mark, since = float("inf"), 0
    for number, gap in enumerate(gaps, 1):
        mark, since = (gap, number) if gap <= 0.99 * mark else (mark, since)
        if number - since >= most:
            return number
    return len(gaps)


def check_rule(patch: pytest.MonkeyPatch) -> None:
    free, met = margins_met(case_of(FULL), patch)
    result = case_of(SHORT).run()
    most = -(-SHORT.passes(5) * 3 // 10)
    ends = [last_pass(met[i], most) for i in case_of(FULL).ids.tolist()]
    assert result.forwards.tolist() == ends
    kept = free.forwards == result.forwards
    assert torch.equal(result.found, free.found & kept)
    assert torch.equal(result.adversarial[result.found], free.adversarial[result.found])
    assert bool((~kept).any())
    assert bool(result.found.any())


def test_a_search_ends_where_its_margin_no_longer_falls(monkeypatch):
    check_rule(monkeypatch)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_nothing_hangs_on_the_others(norm):
    case = replace(Case.make("cnn-small", norm, n=70), config=SHORT)
    whole = case.run()
    check_order_free(case, whole, seed=4)
    check_same(whole, replace(case, tiles=(64,)).run())
    check_same(whole, replace(case, invariant=False).run())


def test_records_without_it_are_older():
    assert "patience" not in to_plain(FULL)
    assert from_plain("apgd-halving", to_plain(FULL)) == FULL
    assert from_plain("apgd-halving", to_plain(SHORT)) == SHORT
    assert to_plain(AUTO.parts[1][1])["patience"] == 0.5


@pytest.mark.parametrize("patience", [0.0, -1.0, 1.5, float("nan")])
def test_patience_that_is_none(patience):
    with pytest.raises(AttackError, match="patience"):
        HalvingConfig(patience=patience)


# planted bugs ------------------------------------------------------------------------------------


def test_patience_that_is_shared_is_seen(monkeypatch):
    """Where any sample falls, all are patient again."""

    def note(patience: attacks.halving._Patience, samples: Tensor, margins: Tensor) -> None:
        fell = margins <= 0.99 * patience.mark[samples]
        patience.mark[samples] = torch.where(fell, margins, patience.mark[samples])
        patience.waited += 1
        if bool(fell.any()):
            patience.waited[:] = 0

    monkeypatch.setattr(attacks.halving._Patience, "note", note)
    with pytest.raises(AssertionError):
        test_nothing_hangs_on_the_others("linf")


def test_patience_that_begins_anew_with_each_round_is_seen(monkeypatch):
    of = attacks.halving._Patience.of

    def anew(patience: attacks.halving._Patience, rows: Tensor) -> attacks.halving._Patience:
        kept = of(patience, rows)
        return replace(kept, waited=0 * kept.waited)

    monkeypatch.setattr(attacks.halving._Patience, "of", anew)
    with pytest.raises(AssertionError):
        check_rule(monkeypatch)

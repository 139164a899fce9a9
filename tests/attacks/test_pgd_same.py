"""Verdicts and examples do not depend on tiles, order, subsets, shards or the active set."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from attack_checks import (
    MODELS,
    NORMS,
    Case,
    check_active_set,
    check_early_ends,
    check_order_free,
    check_same,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.classifier import prepare
from attacks.losses import LOSSES
from attacks.pgd import PGDConfig
from attacks.result import AttackResult


@cache
def whole(name: str, norm: str) -> tuple[Case, AttackResult]:
    case = Case.make(name, norm)
    return case, case.run()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MODELS)
def test_batch_size_changes_nothing(name, norm):
    case, result = whole(name, norm)
    sets = set()
    for batch_size in (1, 7, 64, 1000):
        tiles = prepare(case.module, case.x, batch_size).tiles
        if tiles not in sets:
            check_same(result, replace(case, tiles=tiles).run())
        sets.add(tiles)
    assert len(sets) > 1, "only one set of tiles was tried"


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), tiles=st.sampled_from([(32,), (32, 64), (64,), (32, 128)]))
def test_a_shuffled_subset_gives_the_rows_of_the_whole(name, norm, seed, tiles):
    case, result = whole(name, norm)
    check_order_free(replace(case, tiles=tiles), result, seed)


@pytest.mark.parametrize("norm", NORMS)
def test_shards_give_the_rows_of_the_whole(norm):
    case, result = whole("cnn-small", norm)
    for rows in torch.arange(len(case.x)).split(37):
        check_same(result, case.rows(rows).run(), rows)
    check_same(result, case.rows(torch.tensor([5])).run(), torch.tensor([5]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MODELS)
def test_broken_samples_that_stay_change_nothing(name, norm):
    case, _ = whole(name, norm)
    check_active_set(replace(case, tiles=(32, 64)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MODELS)
def test_restarts_that_repeat_themselves_end_early_and_change_nothing(name, norm):
    case, _ = whole(name, norm)
    case = replace(case, config=PGDConfig(steps=25, restarts=2, step_size=case.threat.eps))
    short = check_early_ends(case)
    if norm == "linf":
        assert (short.forwards < 52)[~short.found].any(), "none ended early"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("goal", ["untargeted", "multi-targeted"])
def test_losses_and_goals_are_as_free(loss, goal):
    case = Case.make("cnn-small", "linf", n=40)
    case = replace(case, config=PGDConfig(steps=4, restarts=3, loss=loss, goal=goal))
    check_active_set(case)
    check_order_free(case, case.run(), 1)


def test_the_seed_and_the_ids_do_change_the_search():
    case, result = whole("mlp", "linf")
    for other in (replace(case, seed=4), replace(case, ids=case.ids + 1)):
        again = other.run()
        assert not torch.equal(again.adversarial, result.adversarial)


def test_nothing_to_attack_and_progress():
    case, _ = whole("mlp", "linf")
    none = case.rows(torch.arange(0)).run()
    assert len(none.found) == 0
    assert none.adversarial.shape == (0, 9)

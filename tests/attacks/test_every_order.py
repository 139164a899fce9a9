"""Every attack and suite: the same bits for any tile, shard and order, and for the same seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_checks import Case, check_same
from test_registry import SMALL

from attacks.classifier import TiledClassifier
from attacks.foolbox_adapter import FoolboxConfig
from attacks.halving import HalvingConfig
from attacks.losses import margin
from attacks.registry import AttackConfig, kind_of
from attacks.result import AttackResult
from attacks.square import SquareConfig
from attacks.suites import SUITES, Suite
from leaderboards.near import is_near

OURS = [config for config in SMALL if not isinstance(config, FoolboxConfig)]
SEEDED = {
    *("pgd", "apgd", "apgd-halving", "square", "hop-skip-jump", "guided", "transformations"),
    "nearest",
}
"""The others start at the sample, and draw nothing in so short a run."""
COUNT = 40


def case_of(config: AttackConfig) -> Case:
    return replace(Case.make("cnn-small", kind_of(config).norms[0], n=COUNT), config=config)


@pytest.mark.parametrize("config", OURS, ids=lambda config: kind_of(config).name)
def test_tiles_shards_and_repeats_change_nothing(config):
    case = case_of(config)
    whole = case.run()
    check_same(whole, case.run())
    check_same(whole, replace(case, tiles=(64,)).run())
    for rows in torch.arange(COUNT).flip(0).split(27):
        check_same(whole, replace(case.rows(rows), tiles=(32, 64)).run(), rows)


@pytest.mark.parametrize("config", OURS, ids=lambda config: kind_of(config).name)
def test_the_seed_counts_where_something_is_drawn(config):
    case = case_of(config)
    one, other = case.run(), replace(case, seed=4).run()
    same = torch.equal(one.adversarial, other.adversarial) and torch.equal(one.lowest, other.lowest)
    assert same != (kind_of(config).name in SEEDED)


def run_suite(suite: Suite, case: Case) -> AttackResult:
    """As a run does it: each part on what those before it left."""
    whole = AttackResult.empty(case.x)
    clean = margin(TiledClassifier(case.module).logits(case.x), case.y)
    for number, (_, config) in enumerate((*suite.parts, *suite.closing)):
        if isinstance(config, SquareConfig):
            config = SquareConfig(queries=30)
        elif not isinstance(config, HalvingConfig):
            config = replace(config, steps=8)
        left = ~whole.found
        if number >= len(suite.parts):
            left = left & is_near(whole.lowest, clean, suite.near)
        left = left.nonzero()[:, 0]
        whole.add(replace(case.rows(left), config=config).run(), left)
    return whole


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_suites_change_as_little(suite):
    case = Case.make("cnn-small", "linf", n=COUNT)
    whole = run_suite(suite, case)
    assert 0 < int(whole.found.sum()) < COUNT
    rows = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))[:33]
    check_same(whole, run_suite(suite, replace(case.rows(rows), tiles=(32, 64))), rows)

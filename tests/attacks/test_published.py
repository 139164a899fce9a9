"""AutoAttack's published form: how APGD projects in L2, the windows of Square, the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import Case, check_inside, check_legal, check_order_free
from test_balls import EPS, SHAPES, draw_gradient, draw_problem
from torch import Tensor

from attacks.apgd import APGD, APGDConfig
from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.lanes import drive
from attacks.problem import Problem
from attacks.randomness import stream_keys
from attacks.registry import from_plain, kind_of, to_plain
from attacks.square import SquareConfig, shares
from attacks.suites import AUTOATTACK
from attacks.threat import ThreatModel

PUBLISHED = APGDConfig(projection="shrink")
EARLY = 20  # steps before the first checkpoint of 100


def visited(case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Tensor], list[Tensor]]:
    """The points of one sample's search, and the gradients there."""
    points, gradients = [], []
    move: Callable[..., None] = APGD.move

    def spy(self, lanes, logits, loss, gradient):
        points.append(lanes.state["point"][0].double())
        gradients.append(gradient[0].double())
        move(self, lanes, logits, loss, gradient)

    with monkeypatch.context() as patch:
        patch.setattr(APGD, "move", spy)
        given = (TiledClassifier(case.module), case.x, case.y, case.ids, case.threat, case.seed)
        drive(Problem(*given, active_set=False), APGD(case.config, case.threat, 5))
    return points, gradients


def published(x: Tensor, eps: float, start: Tensor, gradients: list[Tensor]) -> list[Tensor]:
    """Algorithm 1 with the projection of AutoAttack's code, from known gradients, in [0, 1]."""

    def onto(z):
        return (x + (z - x) * min(1.0, eps / float((z - x).norm()))).clamp(0.0, 1.0)

    points, older = [start], start
    for number, gradient in enumerate(gradients):
        here, share = points[-1], 0.75 if number else 1.0
        ahead = onto(here + 2 * eps * gradient / gradient.norm())
        points.append(onto(here + share * (ahead - here) + (1 - share) * (here - older)))
        older = here
    return points


def apart(case: Case, monkeypatch: pytest.MonkeyPatch) -> float:
    """How far a search and the published one are apart at most, in parts of eps."""
    points, gradients = visited(case, monkeypatch)
    assert len(points) > EARLY
    x, eps = case.x[0].double(), case.threat.eps
    wanted = published(x, eps, points[0], gradients[:EARLY])
    return max(float((a - b).norm()) for a, b in zip(points, wanted, strict=False)) / eps


def test_apgd_moves_as_the_published_code(monkeypatch):
    case = Case.make("cnn-small", "l2", n=20).rows(torch.tensor([0]))
    threat = replace(case.threat, eps=4 * case.threat.eps)  # the box is in the way
    case = replace(case, threat=threat, config=PUBLISHED)
    assert apart(case, monkeypatch) < 1e-4
    assert apart(replace(case, config=APGDConfig()), monkeypatch) > 1e-2


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_other_norms_have_one_projection(norm):
    case = Case.make("cnn-small", norm, n=20)
    short = replace(PUBLISHED, steps=10)
    one, other = (replace(case, config=c).run() for c in (APGDConfig(steps=10), short))
    assert torch.equal(one.adversarial, other.adversarial)
    assert torch.equal(one.lowest, other.lowest)


def test_finds_are_legal_and_hang_on_nothing_but_the_sample():
    case = replace(Case.make("cnn-small", "l2"), config=replace(PUBLISHED, steps=8, targets=2))
    result = case.run()
    check_legal(case, result)
    assert 0 < int(result.found.sum()) < len(case.x)
    check_order_free(replace(case, tiles=(32, 64)), result, seed=4)


@pytest.mark.parametrize("seed", range(60))
def test_whole_steps_stay_inside(seed):
    rng = np.random.default_rng(seed)
    eps, shape = EPS[seed % len(EPS)], SHAPES[rng.integers(len(SHAPES))]
    threat, x = draw_problem(seed, "l2", eps, shape)
    ball = Ball.around(threat, x)
    current = ball.outermost(stream_keys(seed, "test", range(len(x)), 0))
    for _ in range(4):
        size = torch.from_numpy(2 * eps * rng.uniform(size=len(x)))
        current = ball.whole_step(current, draw_gradient(rng, tuple(x.shape)), size)
        check_inside(threat, x, current)


def test_features_that_are_held_take_no_part_of_a_step():
    threat = ThreatModel.box("l2", 1.0, immutable=torch.tensor([True, False]))
    ball = Ball.around(threat, torch.full((1, 2), 0.5))
    moved = ball.whole_step(ball.x, torch.tensor([[1e6, 1.0]]), torch.tensor([0.1]))
    assert moved[0].tolist() == pytest.approx([0.5, 0.6])


def test_windows_shrink_after_as_many_queries_as_in_10000():
    whole, part = shares(0.8, 10_000), shares(0.8, 5000, rescale=False)
    assert part == whole[: len(part)]
    assert len(part) == 4999
    assert part[-1] == 0.8 / 2**7
    assert shares(0.8, 5000)[-1] == 0.8 / 2**9


def test_the_schedule_is_that_of_the_run():
    case = Case.make("cnn-small", "linf", n=30)
    usual, other = (replace(case, config=SquareConfig(40, rescale=r)).run() for r in (True, False))
    assert not torch.equal(usual.lowest, other.lowest)
    long = replace(case, config=SquareConfig(200, rescale=False)).run()
    early = long.found & (long.forwards <= 40)
    assert torch.equal(other.found, early)
    assert torch.equal(other.adversarial[early], long.adversarial[early])


def test_the_suite_is_as_published():
    ce, towards, _, square = (config for _, config in AUTOATTACK.parts)
    assert to_plain(ce)["projection"] == to_plain(towards)["projection"] == "shrink"
    assert to_plain(square)["rescale"] is False
    for config in (ce, towards, square):
        assert from_plain(kind_of(config).name, to_plain(config)) == config


def test_records_without_these_settings_are_older():
    """Their protocol hashes are of exactly these."""
    plain = {"steps": 100, "restarts": 1, "loss": "ce", "targets": 0}
    assert to_plain(APGDConfig()) == plain
    assert from_plain("apgd", plain) == APGDConfig()
    plain = {"queries": 5000, "restarts": 1, "p": 0.8}
    assert to_plain(SquareConfig()) == plain
    assert from_plain("square", plain) == SquareConfig()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("apgd", {"projection": "none"}), ("apgd", {"projection": 1}), ("square", {"rescale": 1})],
)
def test_settings_that_are_not_legal_are_refused(name, settings):
    with pytest.raises(AttackError):
        from_plain(name, settings)

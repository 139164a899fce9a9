"""The L0 threat model: what is inside, what is nearest, and who refuses it."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from attack_checks import Case, check_inside

from attacks.apgd import APGDConfig, apgd
from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.driver import distances, recheck
from attacks.errors import AttackError
from attacks.fab import FABConfig, fab
from attacks.pdpgd import PDPGDConfig, pdpgd
from attacks.pgd import PGDConfig, pgd
from attacks.projections import project_l0
from attacks.square import SquareConfig, square
from attacks.threat import NORMS, ThreatModel


def test_it_counts_features_of_any_size():
    x = torch.rand(40, 2, 3, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[1, 0, 0] = torch.nextafter(x[1, 0, 0], torch.tensor(2.0))
    other[2] += 0.5
    scale = torch.full((2, 3), 1e-30)
    for threat in (ThreatModel.box("l0", 1.0), ThreatModel.box("l0", 1.0, scale=scale)):
        assert distances(x, other, threat)[:4].tolist() == [0, 1, 6, 0]
    module = Case.make("mlp", "l0", 2)
    moved = module.x.clone()
    moved[:, 0] = 0.0
    moved[1, 1] = 0.0
    classifier = TiledClassifier(module.module)
    judged = recheck(classifier, None, module.x, moved, module.y, ThreatModel.box("l0", 1.0))
    assert judged.legal.tolist() == [True, False]


@pytest.mark.parametrize(("eps", "whole"), [(0.0, False), (0.9, False), (1.0, True), (3.0, True)])
def test_a_feature_may_go_anywhere_in_the_box_or_nowhere(eps, whole):
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    held = torch.tensor([False, True, False, False])
    unit = torch.tensor([1.0, 1.0, 5.0, 0.1])
    low, high = ThreatModel.box("l0", eps, -1.0, 2.0, held, unit).bounds(x)
    free = ~held & whole
    assert torch.equal(low, torch.where(free, -1.0, x))
    assert torch.equal(high, torch.where(free, 2.0, x))


def test_the_projection_is_the_nearest_of_all_subsets():
    generator = torch.Generator().manual_seed(0)
    v = 3 * torch.randn(50, 6, generator=generator).double()
    low = -torch.rand(50, 6, generator=generator).double()
    high = torch.rand(50, 6, generator=generator).double()
    for eps in (0.0, 1.0, 2.5, 6.0, 9.0):
        found = project_l0(v, low, high, eps)
        assert ((found >= low) & (found <= high)).all()
        assert ((found != 0).sum(1) <= eps).all()
        clipped, best = v.clamp(low, high), torch.full((50,), torch.inf).double()
        for kept in combinations(range(6), min(int(eps), 6)):
            mask = torch.zeros(6, dtype=torch.bool)
            mask[list(kept)] = True
            best = torch.minimum(best, ((torch.where(mask, clipped, 0.0) - v) ** 2).sum(1))
        assert torch.allclose(((found - v) ** 2).sum(1), best)


@pytest.mark.parametrize("eps", [0.0, 1.0, 3.0, 100.0])
def test_a_projected_point_is_legal_and_a_legal_point_stays(eps):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(30, 2, 4, generator=generator)
    held = torch.rand(2, 4, generator=generator) < 0.2
    threat = ThreatModel.box("l0", eps, -0.1, 1.3, held, torch.full((2, 4), 0.7))
    ball = Ball.around(threat, x)
    once = ball.project(x + torch.randn(x.shape, generator=generator))
    check_inside(threat, x, once)
    assert (distances(once, ball.project(once), ThreatModel.box("linf", 1.0)) < 1e-6).all()
    assert (distances(x, once, threat) == min(eps, (~held).sum())).all()


@pytest.mark.parametrize(
    ("attack", "config"),
    [
        (pgd, PGDConfig()),
        (apgd, APGDConfig()),
        (fab, FABConfig()),
        (pdpgd, PDPGDConfig()),
        (square, SquareConfig()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_attacks_for_other_norms_refuse_it(attack, config):
    case = Case.make("mlp", "l0", 3)
    with pytest.raises(AttackError, match="l0"):
        attack(TiledClassifier(case.module), case.x, case.y, case.ids, case.threat, config, seed=0)


def test_balls_have_no_random_starts_and_steps_there():
    x = torch.rand(3, 4)
    ball, keys = Ball.around(ThreatModel.box("l0", 2.0), x), torch.arange(3)
    for use in (ball.start, ball.outermost, lambda keys: ball.step(x, x, 0.1)):
        with pytest.raises(AttackError, match="l0"):
            use(keys)
    assert "l0" not in NORMS

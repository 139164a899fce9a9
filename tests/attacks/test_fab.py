"""FAB: exact on linear models, and what every attack promises."""

from __future__ import annotations

import pytest
import torch
from attack_checks import NORMS, Case
from nearest_checks import FAR, check_at_zero, check_fixed, linear_share

from attacks import fab as module
from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.fab import FABConfig, fab
from attacks.lanes import drive
from attacks.offsets import Offsets, length
from attacks.problem import Problem


def attack(steps=20, restarts=1, targets=9):
    config = FABConfig(steps, restarts, targets)
    return lambda classifier, x, y, ids, threat, minimal: fab(
        classifier, x, y, ids, threat, config, 3, minimal=minimal
    )


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_models_are_solved(norm, classes):
    assert linear_share(attack(), norm, classes) == 1.0


@pytest.mark.parametrize("norm", NORMS)
def test_without_targets_it_goes_to_the_class_that_is_likeliest_there(norm):
    """Which is not always the nearest: two classes are solved, of more the most."""
    assert linear_share(attack(targets=0), norm, 2) == 1.0
    assert 0.7 < linear_share(attack(targets=0), norm, 5) < 1.0


@pytest.mark.parametrize("norm", NORMS)
def test_at_a_fixed_eps(norm):
    check_fixed(attack(6, restarts=2, targets=2), norm)


@pytest.mark.parametrize("norm", NORMS)
def test_eps_zero(norm):
    check_at_zero(attack(20, targets=0), norm)


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_begin_within_half_of_what_was_found(norm):
    """And on a second use of the method as on the first."""
    case = Case.make("mlp", norm, 32)
    threat = case.threat.box(norm, FAR)
    starts = []

    class Watched(module.FAB):
        def begin(self, lanes):
            state = super().begin(lanes)
            away = length(norm, Offsets.around(threat, lanes.ball.x).of(state["point"]))[:, 0]
            again = lanes.run > 0
            starts.append((away[again], self.nearest[lanes.sample[again]]))
            assert (away[~again] == 0).all()
            return state

    classifier = TiledClassifier(case.module)
    problem = Problem(classifier, case.x, case.y, case.ids, threat, minimal=True)
    method = Watched(FABConfig(10, restarts=3), threat, 3, 32)
    first = drive(problem, method)
    away, nearest = (torch.cat(part) for part in zip(*starts, strict=True))
    assert nearest.isfinite().any()
    assert (away <= nearest / 2 + 1e-6).all()
    assert (away > 0).all()
    assert torch.equal(drive(problem, method).adversarial, first.adversarial)


@pytest.mark.parametrize("norm", NORMS)
def test_a_planted_bug_is_seen(norm, monkeypatch):
    """The nearest point of the boundary in another norm."""
    exact = module.onto_hyperplane
    other = "linf" if norm == "l2" else "l2"
    monkeypatch.setattr(module, "onto_hyperplane", lambda _, *rest: exact(other, *rest))
    assert linear_share(attack(), norm, 2) < 0.5


def test_settings_are_checked():
    for wrong in ({"steps": 3}, {"restarts": 0}, {"targets": -1}):
        with pytest.raises(AttackError):
            FABConfig(**wrong)

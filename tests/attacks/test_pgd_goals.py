"""eps = 0, targets, goals, and settings that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_checks import NORMS, Case, check_early_ends, check_honest
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.losses import LOSSES
from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel


@pytest.mark.parametrize("step_size", [None, 0.1])
@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_eps_0_is_the_clean_accuracy(norm, random_start, step_size):
    case = Case.make("cnn-small", norm, n=40)
    config = PGDConfig(
        steps=3, restarts=2 if random_start else 1, random_start=random_start, step_size=step_size
    )
    case = replace(case, threat=ThreatModel.box(norm, 0.0), config=config)
    result = check_early_ends(case)
    assert not result.found.any()
    assert torch.equal(result.adversarial, case.x)
    wrong = replace(case, y=(case.y + 1) % 5)
    result = wrong.run()
    check_honest(wrong, result)
    assert result.found.all()
    assert (result.iteration == 0).all()
    assert torch.equal(result.adversarial, case.x)


class Reading(nn.Module):
    """Class 0 leads at the sample; class `k` gains on it with feature `k`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.lead = nn.Parameter(0.5 - 0.01 * torch.arange(classes), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.lead + torch.cat([torch.full_like(x[:, :1], 0.1), x[:, 1:]], 1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 4, 6])
def test_targets_are_reached_and_nothing_else_counts(classes, norm, loss):
    n = 3 * (classes - 1)
    x, y = torch.zeros(n, classes), torch.zeros(n, dtype=torch.int64)
    targets = 1 + torch.arange(n) % (classes - 1)
    classifier = TiledClassifier(Reading(classes).eval())
    config = PGDConfig(steps=20, restarts=2, loss=loss)
    for eps, reached in ((0.05, False), (0.6, True)):
        threat = ThreatModel.box(norm, eps)
        result = pgd(classifier, x, y, torch.arange(n), threat, config, 0, targets=targets)
        assert bool(result.found.all()) is reached
        assert torch.equal(result.found, result.lowest < 0)
        if reached:
            assert torch.equal(classifier.logits(result.adversarial).argmax(1), targets)
        else:
            assert not result.found.any()


def test_a_target_out_of_reach_is_not_found_though_another_class_is():
    x, y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    immutable = torch.tensor([False, False, True])  # class 2 cannot gain
    threat = ThreatModel.box("linf", 0.9, immutable=immutable)
    classifier, config = TiledClassifier(Reading(3).eval()), PGDConfig(steps=10, restarts=2)
    aim = torch.full((4,), 2)
    assert not pgd(classifier, x, y, y, threat, config, 0, targets=aim).found.any()
    assert pgd(classifier, x, y, y, threat, config, 0).found.all()


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])  # a probability falls with any other's
def test_multi_targeted_raises_the_classes_in_the_order_of_their_logits(loss):
    x, y = torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64)
    for reachable in (1, 2, 3):
        immutable = torch.arange(4) != reachable
        threat = ThreatModel.box("linf", 0.5, immutable=immutable)
        config = PGDConfig(
            steps=10, restarts=3, loss=loss, goal="multi-targeted", random_start=False
        )
        result = pgd(TiledClassifier(Reading(4).eval()), x, y, y, threat, config, 0)
        assert result.found.all()
        # cross-entropy and DLR towards another class are flat in this feature or push it down
        assert (result.restart == reachable - 1).all()
        fewer = replace(config, restarts=max(1, reachable - 1))
        found = pgd(TiledClassifier(Reading(4).eval()), x, y, y, threat, fewer, 0).found
        assert bool(found.any()) is (reachable == 1)


def test_two_classes_have_one_target():
    x, y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    config = PGDConfig(steps=10, restarts=3, goal="multi-targeted")
    classifier = TiledClassifier(Reading(2).eval(), invariant=False)
    assert pgd(classifier, x, y, y, ThreatModel.box("linf", 0.6), config, 0).found.all()
    result = pgd(classifier, x, y, y, ThreatModel.box("linf", 0.05), config, 0)
    assert (result.forwards == 33).all()


def test_progress_counts_every_sample_once():
    case = Case.make("mlp", "linf")
    seen: list[tuple[int, int]] = []
    result = pgd(
        TiledClassifier(case.module),
        case.x,
        case.y,
        case.ids,
        case.threat,
        case.config,
        0,
        progress=lambda done, broken: seen.append((done, broken)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (len(case.x), int(result.found.sum()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts 0"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"step_size": float("nan")}, "step_size is nan"),
        ({"step_size": float("inf")}, "step_size is inf"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"goal": "all"}, "unknown goal 'all'"),
        ({"random_start": False, "restarts": 2}, "set restarts to 1"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(AttackError, match=message) as caught:
        PGDConfig(**settings)
    assert "\n" not in str(caught.value)


def test_the_default_step_is_a_quarter_of_eps():
    assert PGDConfig().resolved_step(0.2) == pytest.approx(0.05)
    assert PGDConfig(step_size=0.01).resolved_step(0.2) == 0.01

"""APGD for L1: exact on linear models, no weaker than PGD, and free of order."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from attack_checks import Case, check_inside, check_same, reach
from torch import nn

from attacks.apgd import APGDConfig, apgd
from attacks.apgd_l1 import APGDL1, sparse_direction
from attacks.classifier import TiledClassifier
from attacks.pgd import PGDConfig, pgd
from attacks.randomness import stream_keys, uniform
from attacks.result import AttackResult
from attacks.threat import ThreatModel

SHORT = APGDConfig(steps=20, loss="margin")


def run(case: Case, config: APGDConfig = SHORT) -> AttackResult:
    classifier = TiledClassifier(case.module, case.tiles)
    return apgd(classifier, case.x, case.y, case.ids, case.threat, config, case.seed)


@cache
def whole() -> tuple[Case, AttackResult]:
    """Samples at the ends of the box, and a mask."""
    case = Case.make("cnn-small", "l1", n=60)
    mask = torch.zeros(case.x.shape[1:], dtype=torch.bool)
    mask[..., ::3] = True
    x = case.x.where(case.x > 0.2, 0.0).where(case.x < 0.8, 1.0)
    y = TiledClassifier(case.module).logits(x).argmax(1)
    case = replace(case, x=x, y=y, threat=replace(case.threat, immutable=mask, eps=1.0))
    return case, run(case)


def check_honest(case: Case, result: AttackResult) -> None:
    check_inside(case.threat, case.x, result.adversarial)
    assert 0 < int(result.found.sum()) < len(case.x)
    logits = TiledClassifier(case.module).logits(result.adversarial)
    assert (logits.argmax(1) != case.y)[result.found].all()
    assert torch.equal(result.adversarial[~result.found], case.x[~result.found])


def linear_problem(classes: int, low: float, high: float, d: int = 20):
    """A linear model, and for each sample the radius from which on it can be broken."""
    rng = np.random.default_rng(classes)
    module = nn.Linear(d, classes).eval().requires_grad_(False)
    weights = (rng.normal(size=(classes, d)) / (high - low)).astype(np.float32).astype(np.float64)
    module.weight.copy_(torch.tensor(weights))
    n, span = 64, high - low
    x = torch.tensor(rng.uniform(low, high, (n, d))).float()
    x[:, : d // 4] = low  # at an end of the box from the start
    module.bias.copy_(-(x @ module.weight.T).mean(0))
    logits = (x.double() @ module.weight.double().T + module.bias.double()).numpy()
    y, least = logits.argmax(1), np.full(n, np.inf)
    for i, row in enumerate(x.double().numpy()):
        for other in set(range(classes)) - {y[i]}:
            pull = weights[other] - weights[y[i]]
            cap = np.where(pull > 0, high - row, row - low)
            gap, below, above = logits[i, y[i]] - logits[i, other], 0.0, d * span
            if np.abs(pull) @ cap <= gap:
                continue
            for _ in range(60):
                middle = (below + above) / 2
                over = reach("l1", np.abs(pull), cap, middle) > gap
                below, above = (below, middle) if over else (middle, above)
            least[i] = min(least[i], above)
    return module, x, torch.tensor(y), torch.tensor(least)


@pytest.mark.parametrize(
    ("classes", "low", "high", "loss"), [(2, 0.0, 1.0, "ce"), (3, -3.0, 5.0, "margin")]
)
def test_on_linear_models_all_that_can_be_broken_is(classes, low, high, loss):
    module, x, y, least = linear_problem(classes, low, high)
    eps = float(least.median())
    threat = ThreatModel.box("l1", eps, low, high)
    config = APGDConfig(steps=40, loss=loss, targets=classes - 1 if classes > 2 else 0)
    result = apgd(TiledClassifier(module), x, y, torch.arange(len(x)), threat, config, 0)
    check_inside(threat, x, result.adversarial)
    sure = (least / eps - 1).abs() > 1e-3
    assert sure.sum() >= len(x) - 4
    assert torch.equal(result.found[sure], (least < eps)[sure])


def test_it_breaks_no_fewer_than_pgd_at_equal_gradients():
    case = Case.make("cnn-small", "l1", n=96)
    ours = run(case, APGDConfig(steps=40)).found
    config = PGDConfig(steps=40, restarts=1)
    classifier = TiledClassifier(case.module)
    theirs = pgd(classifier, case.x, case.y, case.ids, case.threat, config, 3).found
    assert 0 < theirs.sum() <= ours.sum() < 96


def test_finds_are_legal_and_wrong():
    check_honest(*whole())


@pytest.mark.parametrize("tiles", [(32,), (32, 64)])
def test_a_shuffled_subset_gives_the_rows_of_the_whole(tiles):
    case, result = whole()
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:41]
    check_same(result, run(replace(case.rows(rows), tiles=tiles)), rows)


@pytest.mark.parametrize("loss", ["dlr", "probability-margin"])
@pytest.mark.parametrize("targets", [0, 2])
def test_the_other_losses_and_targets(loss, targets):
    case, _ = whole()
    check_honest(case, run(case, APGDConfig(steps=10, loss=loss, targets=targets)))


def test_units_that_a_scale_undoes_change_nothing():
    case = Case.make("mlp", "l1", n=40)
    unit = 2.0 ** torch.arange(-4, 5)  # powers of two: the same bits, shifted
    other = nn.Sequential(Shrink(unit), case.module).eval()
    threat = ThreatModel.box("l1", case.threat.eps, 0.0, unit, scale=unit)
    scaled = replace(case, module=other, x=case.x * unit, threat=threat)
    one, two = run(case), run(scaled)
    check_inside(threat, scaled.x, two.adversarial)
    assert 0 < one.found.sum() < 40
    assert torch.equal(one.found, two.found)
    assert torch.equal(one.adversarial * unit, two.adversarial)


class Shrink(nn.Module):
    def __init__(self, unit: torch.Tensor) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.unit


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_eps_0_and_few_steps(steps):
    case, _ = whole()
    case = replace(case, threat=replace(case.threat, eps=0.0))
    result = run(case, APGDConfig(steps=steps))
    assert not result.found.any()
    assert (result.backwards == steps).all()


def test_the_direction_keeps_the_largest_entries_of_each_row():
    gradient = uniform(stream_keys(0, "t", range(3), 0), 8).double() - 0.5
    gradient[2] = 0.0
    found = sparse_direction(gradient, torch.tensor([0.3, 3.9, 2.0]))
    for row, kept, size in zip(found, gradient, (1, 3, 0), strict=True):
        top = kept.abs().argsort(descending=True)[:size]
        assert row.nonzero()[:, 0].tolist() == sorted(top.tolist())
        assert torch.equal(row[top], kept[top].sign() / max(size, 1))


@pytest.mark.parametrize("plant", ["counts-anywhere", "mask-ignored", "noise-by-position"])
def test_a_planted_bug_is_seen(plant, monkeypatch):
    case, result = whole()
    rows = torch.arange(59, 9, -1)
    if plant == "counts-anywhere":
        monkeypatch.setattr(APGDL1, "strays", False)
    elif plant == "mask-ignored":
        bounds = ThreatModel.bounds
        monkeypatch.setattr(
            ThreatModel, "bounds", lambda threat, x: bounds(replace(threat, immutable=None), x)
        )
    else:
        monkeypatch.setattr(
            "attacks.lanes.stream_keys",
            lambda seed, name, ids, run: stream_keys(seed, name, range(len(ids)), run),
        )
    with pytest.raises(AssertionError):
        check_all(case, result, rows)


def check_all(case: Case, result: AttackResult, rows: torch.Tensor) -> None:
    check_honest(case, run(case))
    check_same(result, run(case.rows(rows)), rows)

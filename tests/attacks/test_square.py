"""Square Attack: legal, order free, exact about queries, and as strong as it should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import NORMS, Case, check_inside, check_same, reach
from torch import nn

import attacks.square
from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.pgd import PGDConfig, pgd
from attacks.square import Square, SquareConfig, pattern, shares, square
from attacks.threat import ThreatModel


def run(case: Case, queries: int = 24, restarts: int = 1):
    classifier = TiledClassifier(case.module, case.tiles)
    config = SquareConfig(queries, restarts)
    return square(classifier, case.x, case.y, case.ids, case.threat, config, case.seed)


def breakable(norm, shape, samples=32, box=3.0, queries=200):
    """Square on a linear model of two classes, and eps as a share of the exact distances."""
    rng, d = np.random.default_rng(4), int(np.prod(shape))
    weight = rng.normal(size=(2, d)).astype(np.float32)
    pull = (weight[1] - weight[0]).astype(np.float64)
    x = rng.uniform(-1.0, box, (samples, d)).astype(np.float32)
    eps = {"linf": 0.3, "l2": 1.0, "l1": 3.0}[norm]
    caps = np.where(pull > 0, box - x, x + 1.0)
    gains = np.array([reach(norm, np.abs(pull), cap, eps) for cap in caps])
    module = nn.Sequential(nn.Flatten(), nn.Linear(d + 1, 2, bias=False)).eval()
    module.requires_grad_(False)[1].weight.copy_(
        torch.tensor(np.c_[weight, np.array([[1.0], [0.0]])])
    )
    # a feature of its own that may not move carries the lead of class 0: a share of what eps gains
    lead = np.linspace(0.5, 1.2, samples) * gains + x.astype(np.float64) @ pull
    held = torch.arange(d + 1) == d
    samples_x = torch.tensor(np.c_[x, lead], dtype=torch.float32)
    threat = ThreatModel.box(
        norm, eps, torch.where(held, -1e4, -1.0), torch.where(held, 1e4, box), held
    )
    classifier, y = TiledClassifier(module), torch.zeros(samples, dtype=torch.int64)
    ids = torch.arange(samples)
    result = square(classifier, samples_x, y, ids, threat, SquareConfig(queries), 0)
    check_inside(threat, samples_x, result.adversarial)
    return result.found, torch.linspace(0.5, 1.2, samples)


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.97), ("l2", 0.7), ("l1", 0.6)])
def test_on_a_linear_model_what_is_breakable_breaks(norm, share):
    """Of vectors, with nothing beyond eps: from this share of what the best perturbation gains."""
    found, lead = breakable(norm, (20,))
    assert not found[lead > 1].any(), "broken beyond the closed form"
    assert found[lead < share].all()


def weaker(norm="linf"):
    with pytest.raises(AssertionError):
        test_on_a_linear_model_what_is_breakable_breaks(norm, {"linf": 0.97, "l2": 0.7}[norm])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_search_that_keeps_every_point_is_seen(norm, monkeypatch):
    monkeypatch.setattr(Square, "loss", lambda self, lanes, logits: lanes.step.float())
    weaker(norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_that_stands_still_is_seen(norm, monkeypatch):
    monkeypatch.setattr(attacks.square, "advance", lambda keys, numbers: keys)
    weaker(norm)


def test_windows_that_never_shrink_are_seen(monkeypatch):
    monkeypatch.setattr(attacks.square, "shares", lambda p, queries, rescale: [p] * (queries - 1))
    weaker()


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.85), ("l2", 0.5)])
def test_on_a_small_cnn_it_breaks_most_of_what_gradients_break(norm, share):
    case = Case.make("cnn-small", norm, n=32)
    classifier, config = TiledClassifier(case.module, (32,)), PGDConfig(40, 1, loss="margin")
    by_gradient = pgd(classifier, case.x, case.y, case.ids, case.threat, config, 0).found
    found = run(case, queries=200).found
    assert int(by_gradient.sum()) > 10
    assert int((found & by_gradient).sum()) >= share * int(by_gradient.sum())


def cases(norm):
    image = Case.make("cnn-small", norm, n=33)
    table = Case.make("mlp", norm, n=33)
    held = torch.zeros(9, dtype=torch.bool)
    held[[0, 4]] = True
    unit = torch.linspace(0.5, 3.0, 9)
    tabular = ThreatModel.box(norm, table.threat.eps, -0.5, torch.full((9,), 1.25), held, unit)
    two = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval().requires_grad_(False)
    two[1].weight.copy_(torch.randn(2, 9, generator=torch.Generator().manual_seed(0)))
    two[1].bias.zero_()
    y = TiledClassifier(two).logits(table.x).argmax(1)
    image = replace(image, threat=replace(image.threat, eps=2 * image.threat.eps))
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[..., ::3] = True
    masked = ThreatModel.box(norm, image.threat.eps, 0.0, 1.0, mask)
    return {
        "image": image,
        "masked": Case(image.module, image.x, image.y, image.ids, masked),
        "tabular": Case(table.module, table.x, table.y, table.ids, tabular),
        "two-classes": Case(two, table.x, y, table.ids, replace(tabular, eps=2 * tabular.eps)),
    }


@pytest.mark.parametrize("kind", ["image", "masked", "tabular", "two-classes"])
@pytest.mark.parametrize("norm", NORMS)
def test_points_are_legal_and_verdicts_belong_to_samples(norm, kind):
    case = cases(norm)[kind]
    result = run(case)
    check_inside(case.threat, case.x, result.adversarial)
    wrong = TiledClassifier(case.module).logits(result.adversarial).argmax(1) != case.y
    assert torch.equal(wrong, result.found)
    assert 0 < int(result.found.sum()) < 33
    spent = torch.where(result.found, result.iteration + 1, 24)
    assert torch.equal(result.forwards, spent)
    assert not result.backwards.any()
    rows = torch.randperm(33, generator=torch.Generator().manual_seed(1))[:23]
    check_same(result, run(case.rows(rows)), rows)
    wide = Case(case.module, case.x, case.y, case.ids, case.threat, tiles=(32, 64))
    check_same(result, run(wide))


def test_noise_that_belongs_to_places_is_seen(monkeypatch):
    case = cases("linf")["image"]
    whole = run(case)
    real = attacks.square.uniform
    monkeypatch.setattr(
        attacks.square,
        "uniform",
        lambda keys, count: real(torch.arange(len(keys)) * 7919 + keys[0], count),
    )
    rows = torch.arange(32, 9, -1)
    with pytest.raises(AssertionError):
        check_same(whole, run(case.rows(rows)), rows)


@pytest.mark.parametrize("norm", NORMS)
def test_every_point_tried_is_legal(norm, monkeypatch):
    """Those of step after step, not only the finds; and they do differ from each other."""
    case, tried = cases(norm)["masked"], []
    move = Square.move

    def spy(self, lanes, *more):
        check_inside(case.threat, lanes.ball.x, lanes.state["point"])
        tried.append(lanes.state["point"][lanes.live])
        return move(self, lanes, *more)

    monkeypatch.setattr(Square, "move", spy)
    run(case, queries=12)
    points = torch.cat(tried)
    assert len(torch.unique(points, dim=0)) > 0.6 * len(points) > 100


@pytest.mark.parametrize("norm", NORMS)
def test_no_eps_no_find(norm):
    case = Case.make("mlp", norm, n=20)
    none = ThreatModel.box(norm, 0.0)
    result = run(Case(case.module, case.x, case.y, case.ids, none), queries=5, restarts=2)
    assert not result.found.any()
    assert torch.equal(result.forwards, torch.full((20,), 10))


def test_windows_shrink_on_the_schedule_of_the_paper():
    found = shares(0.8, 10_000)
    assert found[9] == 0.8
    assert found[10] == 0.4
    assert found[49] == 0.4
    assert found[50] == 0.2
    assert found[-1] == 0.8 / 2**9
    short = shares(0.8, 1000)
    assert len(short) == 999
    assert short[0] == 0.8
    assert short[1] == 0.4
    assert short[99] == 0.8 / 2**4
    assert short[100] == 0.8 / 2**5


@pytest.mark.parametrize("fall", [2, 4])
@pytest.mark.parametrize("side", [1, 3, 4, 5, 9])
def test_the_pattern_is_that_of_the_paper(side, fall):
    """Equations 1 and 2, entry by entry; in L1 of another power."""

    def entry(rows, columns, r, s):
        n = max(rows, columns) // 2
        reached = n - max(abs(r - rows // 2 - 1), abs(s - columns // 2 - 1))
        return sum(1 / (n + 1 - k) ** fall for k in range(reached + 1))

    half, found = side // 2, pattern(side, side, fall)
    for r in range(side):
        for s in range(side):
            upper = r < half
            rows, row = (half, r) if upper else (side - half, r - half)
            value = entry(rows, side, row + 1, s + 1) * (1 if upper else -1)
            assert found[r, s].item() == pytest.approx(value)


@pytest.mark.parametrize(("norm", "odd"), [("linf", False), ("l2", True), ("l1", True)])
def test_windows_of_l2_and_l1_have_a_middle(norm, odd):
    method = Square(SquareConfig(1000), ThreatModel.box(norm, 1.0), (1, 28, 28))
    assert method.rows.tolist() == method.columns.tolist()
    assert all(side % 2 or side == 28 for side in method.rows.tolist()) == odd
    kind = int(method.kind[500])
    side, steep = int(method.rows[500]), {"linf": 2, "l2": 2, "l1": 4}[norm]
    assert torch.equal(method.patterns[kind, :side, :side], pattern(side, side, steep))


@pytest.mark.parametrize(
    "wrong", [{"queries": 1}, {"restarts": 0}, {"p": 0.0}, {"p": 1.5}, {"p": float("nan")}]
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(AttackError):
        SquareConfig(**wrong)

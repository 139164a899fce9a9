"""Feature-guided search: stronger than chance at the same price, within its budget, legal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import Case, check_inside, check_same, reach
from torch import Tensor, nn

import attacks.guided
from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.errors import AttackError
from attacks.guided import Guided, GuidedConfig, guided
from attacks.keypoints import keypoints
from attacks.lanes import Lanes, Method, State, drive
from attacks.losses import margin
from attacks.pgd import PGDConfig
from attacks.problem import Problem
from attacks.randomness import advance
from attacks.result import AttackResult
from attacks.threat import NORMS, ThreatModel

QUERIES = 100


def run(case: Case, queries: int = QUERIES, **more: int) -> AttackResult:
    classifier = TiledClassifier(case.module, case.tiles)
    config = GuidedConfig(queries, **more)
    return guided(classifier, case.x, case.y, case.ids, case.threat, config, case.seed)


class Chance(Method):
    """Random points at distance eps: for Linf, corners of the ball."""

    name, gradients, runs = "chance", False, 1

    def __init__(self, queries: int) -> None:
        self.steps = queries - 1

    def begin(self, lanes: Lanes) -> State:
        return {"point": lanes.ball.x}

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        return margin(logits, lanes.y)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        ball = lanes.ball
        point = ball.outermost(advance(lanes.keys, lanes.step * 4 * ball.x[0].numel()))
        if ball.threat.norm == "linf":
            point = torch.where(point > ball.x, ball.high, ball.low)
        lanes.state = {"point": point}


def chance(case: Case, queries: int = QUERIES) -> AttackResult:
    classifier = TiledClassifier(case.module, case.tiles)
    return drive(Problem(classifier, case.x, case.y, case.ids, case.threat), Chance(queries))


def check_found(case: Case, result: AttackResult) -> None:
    check_inside(case.threat, case.x, result.adversarial)
    classifier = TiledClassifier(case.module)
    judged = recheck(classifier, None, case.x, result.adversarial, case.y, case.threat)
    assert torch.equal(judged.broken, result.found)
    assert torch.equal(result.adversarial[~result.found], case.x[~result.found])


def check_company(case: Case) -> None:
    """A shuffled part in other tiles gives the rows of the whole."""
    rows = torch.randperm(len(case.x), generator=torch.Generator().manual_seed(0))[:21]
    part = replace(case.rows(rows), tiles=(64,))
    check_same(run(case, 20), run(part, 20), rows)


def check_strength(norm: str) -> None:
    """Half as many again as chance, and much of what PGD breaks."""
    case = Case.make("cnn-small", norm, n=32)
    result = run(case)
    check_found(case, result)
    ours = int(result.found.sum())
    assert ours >= 1.5 * int(chance(case).found.sum()) + 1
    pgd = replace(case, config=PGDConfig(steps=30, restarts=1, loss="margin")).run()
    assert ours >= 0.45 * int(pgd.found.sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_breaks_more_than_chance(norm):
    check_strength(norm)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_finds_the_minimal_distance_of_a_linear_model(norm):
    """A table: three columns that move, one that does not and carries the sample's bias."""
    lower, upper = torch.tensor([-3.0, 10.0, 0.0, -90.0]), torch.tensor([3.0, 18.0, 1.5, 90.0])
    scale = torch.tensor([6.0, 8.0, 1.5, 1.0])
    slope = torch.tensor([1.0, -0.6, 0.8, 1.0]) / scale
    module = nn.Linear(4, 2).eval().requires_grad_(False)
    module.weight.copy_(torch.stack([torch.zeros(4), slope]))
    x = (lower + upper) / 2 + 0.1 * (upper - lower) * torch.rand(
        16, 4, generator=torch.Generator().manual_seed(0)
    )
    exact = 0.2
    gap = reach(norm, (slope * scale)[:3].double().abs().numpy(), np.full(3, 1e9), exact)
    x[:, 3] = -gap - x[:, :3] @ slope[:3]
    module.bias.zero_()
    found = []
    for factor in (0.98, 1.02 if norm == "linf" else 1.1):
        threat = ThreatModel.box(norm, factor * exact, lower, upper, torch.arange(4) == 3, scale)
        case = Case(module, x, torch.zeros(16).long(), torch.arange(16), threat)
        result = run(case, 60)
        check_found(case, result)
        found.append(int(result.found.sum()))
    assert found == [0, 16]


@pytest.mark.parametrize("name", ["cnn-small", "mlp"])
def test_company_changes_nothing(name):
    check_company(Case.make(name, "linf", n=40))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["cnn-small", "mlp"])
def test_legal_in_a_strange_box(name, norm):
    """Box [-1, 2], samples at its ends, features that may not move."""
    case = Case.make(name, norm, n=32)
    x = (3.4 * case.x - 1.2).clamp(-1.0, 2.0)
    mask = torch.zeros(x.shape[1:], dtype=torch.bool)
    mask[..., ::3] = True
    threat = ThreatModel.box(norm, 4 * case.threat.eps, -1.0, 2.0, immutable=mask)
    y = TiledClassifier(case.module).logits(x).argmax(1)
    case = replace(case, x=x, y=y, threat=threat)
    result = run(case, 30)
    check_found(case, result)
    assert bool(result.found.any())


def test_two_classes_and_colours():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    module.requires_grad_(False)
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    y = TiledClassifier(module).logits(x).argmax(1)
    case = Case(module, x, y, torch.arange(20), ThreatModel.box("linf", 0.2))
    check_found(case, run(case, 25))


def test_the_budget_is_exact():
    case = Case.make("mlp", "linf", n=32)
    case = replace(case, threat=replace(case.threat, eps=0.4 * case.threat.eps))
    result = run(case, 7, restarts=3)
    assert (result.forwards[~result.found] == 21).all()
    assert (result.forwards <= 21).all()
    assert int(result.found.sum()) < 32
    assert not result.backwards.any()
    once = run(case, 1)
    assert (once.forwards == 1).all()


def test_without_room_nothing_is_found():
    case = Case.make("cnn-small", "linf", n=8)
    case = replace(case, threat=replace(case.threat, eps=0.0))
    assert not run(case, 5).found.any()
    assert len(run(case.rows(torch.arange(0)), 5).found) == 0


def test_more_queries_break_more():
    case = Case.make("mlp", "l2", n=32)
    few, many = run(case, 5), run(case, 60)
    assert (many.found | ~few.found).all()
    assert int(many.found.sum()) > int(few.found.sum())


# keypoints ---------------------------------------------------------------------------------------


def test_blobs_are_found_where_they_are():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    places = [(8, 8, 1.5, 1.0), (22, 9, 3.0, -0.8), (15, 24, 2.0, 0.6)]
    image = sum(
        a * torch.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * s * s)) for r, c, s, a in places
    )
    found = keypoints(torch.stack([image, image.T])[:, None], 32)
    assert found.shape == (2, 32, 4)
    for row, column, size, _ in places:
        near = (found[0, :8, :2] - torch.tensor([row, column])).abs().amax(1) <= 1
        assert bool(near.any()), (row, column)
        assert 0.5 * size <= float(found[0, :8][near][0, 2]) <= 2 * size
    assert torch.equal(found[0, :3, :2], found[1, :3, :2].flip(1))
    assert (found[..., 3] >= 0).all()
    far = (y - 8) ** 2 + (x - 8) ** 2
    assert float(far[found[0, 0, 0].long(), found[0, 0, 1].long()]) <= 2, "the strongest first"


def test_small_and_flat_images_have_keypoints():
    found = keypoints(torch.zeros(2, 3, 4, 5), 32)
    assert found.shape == (2, 20, 4)
    assert (found[..., 3] == 0).all()
    assert (found[..., 0] < 4).all()
    assert (found[..., 1] < 5).all()


def test_a_column_without_room_is_not_picked():
    x, y = torch.full((4, 3), 0.5), torch.zeros(4).long()
    threat = ThreatModel.box("linf", 0.1, immutable=torch.tensor([False, True, False]))
    method = Guided(
        GuidedConfig(5), Problem(TiledClassifier(nn.Linear(3, 2).eval()), x, y, y, threat)
    )
    share = torch.diff(method.weight, dim=1, prepend=torch.zeros(4, 1).double())
    assert (share[:, 1] < 1e-5 * share[:, 0]).all()
    assert torch.allclose(share[:, 0], share[:, 2])


# settings and planted bugs -----------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"queries": 0}, {"restarts": 0}, {"window": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(AttackError, match=f"{next(iter(wrong))} (is )?0"):
        GuidedConfig(**wrong)


def test_a_root_that_never_moves_is_seen(monkeypatch):
    replant = Guided._replant

    def back(self: Guided, s: State, rows: Tensor) -> None:
        root, value = s["positions"][:, 0].clone(), s["value"][:, 0].clone()
        replant(self, s, rows)
        s["positions"][:, 0], s["value"][:, 0] = root, value

    monkeypatch.setattr(Guided, "_replant", back)
    with pytest.raises(AssertionError):
        check_strength("linf")


def test_moves_the_wrong_way_are_seen(monkeypatch):
    monkeypatch.setattr(Guided, "loss", lambda self, lanes, logits: margin(logits, lanes.y))
    with pytest.raises(AssertionError):
        check_strength("linf")


def test_a_move_out_of_the_ball_is_seen(monkeypatch):
    monkeypatch.setattr(attacks.guided, "_press", lambda ball, position, stamp: position + stamp)
    with pytest.raises(AssertionError):
        check_strength("linf")


def test_noise_by_place_is_seen(monkeypatch):
    pick = Guided._play

    def by_place(self: Guided, lanes: Lanes, *more: object) -> None:
        keys, lanes.keys = lanes.keys, torch.arange(len(lanes.keys)) * 12345
        pick(self, lanes, *more)
        lanes.keys = keys

    monkeypatch.setattr(Guided, "_play", by_place)
    with pytest.raises(AssertionError):
        check_company(Case.make("mlp", "linf", n=40))

"""Attacks on explanations reach what is known to be the maximum, and beat random points."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from bending_checks import Case
from torch import Tensor, nn

from attacks.explanation_attacks import ExplanationAttackConfig, attack_explanations
from attacks.explanation_losses import likeness, mass_centre
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, explain
from attacks.randomness import stream_keys, uniform
from attacks.threat import ThreatModel, WeightBudget

IDS = torch.arange(6)


class Quadratic(nn.Module):
    """Logits (x.A x / 2, -9): the gradient of the first is A x, and moves by A delta."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        value = (x @ self.matrix * x).sum(1) / 2
        return torch.stack([value, value.detach() * 0 - 9], 1)


def corners(dimensions: int) -> Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=dimensions)))


def attacked(
    model: nn.Module,
    x: Tensor,
    threat: ThreatModel | None,
    measure: str,
    config: ExplanationAttackConfig,
    budget: WeightBudget | None = None,
) -> Tensor:
    target = torch.zeros(len(x), dtype=torch.long)
    criterion = Criterion(measure)  # type: ignore[arg-type]
    result = attack_explanations(
        model, x, target, IDS, threat, Explanation(), criterion, config, 0, budget=budget
    )
    return result.distance


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "measure", ["linf", "l2", *(pytest.param(m, marks=pytest.mark.slow) for m in ("l1", "mean"))]
)
def test_of_a_quadratic_the_maximum_is_reached(norm: str, measure: str) -> None:
    generator = torch.Generator().manual_seed(3)
    half = torch.randn(5, 5, generator=generator)
    matrix = half @ half.T  # convex: no other class is ever predicted
    x = 0.4 + 0.2 * torch.rand(6, 5, generator=generator)
    threat = ThreatModel.box(norm, 0.1)  # type: ignore[arg-type]
    signs = corners(5)
    if norm == "linf":  # a norm is convex: its maximum over a box is at a corner
        ends = 0.1 * signs @ matrix
    else:  # of one entry of A d, or of s.A d for signs s, at d along a row, or along A s
        rows = {"linf": torch.eye(5), "l1": signs, "mean": signs}.get(measure)
        if rows is None:
            rows = torch.linalg.eigh(matrix).eigenvectors.T[-1:]
            ends = 0.1 * rows @ matrix
        else:
            along = rows @ matrix
            ends = 0.1 * along / along.norm(dim=1, keepdim=True) @ matrix
    sizes = {
        "linf": ends.abs().amax(1),
        "l2": ends.norm(dim=1),
        "l1": ends.abs().sum(1),
        "mean": ends.abs().mean(1),
    }
    best = float(sizes[measure].max())
    config = ExplanationAttackConfig(steps=40, restarts=16)  # each from its own side
    found = attacked(Quadratic(matrix).eval(), x, threat, measure, config)
    assert (found <= best * (1 + 1e-5)).all()
    assert (found >= best * 0.999).all()


def test_of_a_linear_model_weights_reach_their_vertex() -> None:
    """The gradient is a row of weights, each of which may move by gamma of its size."""
    torch.manual_seed(0)
    model = nn.Linear(7, 3).eval()
    with torch.no_grad():
        model.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    x = torch.rand(6, 7)
    found = attacked(model, x, None, "l1", ExplanationAttackConfig(steps=20), WeightBudget(0.05))
    best = 0.05 * float(model.weight[0].abs().sum())
    assert (found <= best * (1 + 1e-5)).all()
    assert (found >= best * 0.9999).all()


@pytest.mark.parametrize("measure", ["linf", pytest.param("l2", marks=pytest.mark.slow), "cosine"])
def test_of_one_hidden_layer_the_best_pattern_is_reached(measure: str) -> None:
    """With two inputs a fine grid meets every pattern of ReLUs, and with it every gradient."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([20.0, 0.0]))
    x, threat = 0.3 + 0.4 * torch.rand(6, 2), ThreatModel.box("linf", 0.25)
    found = attacked(model, x, threat, measure, ExplanationAttackConfig(steps=60, restarts=6))
    line = torch.linspace(-0.25, 0.25, 301)
    grid = torch.cartesian_prod(line, line)
    zeros = torch.zeros(len(grid), dtype=torch.long)
    for i in range(6):
        points = (x[i] + grid).clamp(0, 1)
        clean = explain(model, x[i : i + 1].expand_as(points), zeros)
        away = Criterion(measure).distance(clean, explain(model, points, zeros))  # type: ignore[arg-type]
        assert found[i] >= 0.98 * away.max(), f"sample {i}: {found[i]:.4f} of {away.max():.4f}"


def by_chance(case: Case, tries: int) -> Tensor:
    """The largest distance at random points and corners of the ball, the prediction kept."""
    assert case.threat is not None
    low, high = case.threat.bounds(case.x)
    clean = explain(case.model, case.x, case.target, case.explanation)
    best = case.criterion.distance(clean, clean)
    for trial in range(tries):
        keys = stream_keys(0, "chance", case.ids.tolist(), trial)
        u = uniform(keys, case.x[0].numel()).view_as(case.x)
        point = (low + (u.round() if trial % 2 else u) * (high - low)).clamp(low, high)
        kept = case.model(point).argmax(1) == case.target
        away = case.criterion.distance(clean, explain(case.model, point, case.target))
        best = torch.where(kept, torch.maximum(best, away), best)
    return best


@pytest.mark.parametrize(
    ("criterion", "gain"),
    [
        (Criterion("linf"), 1.5),
        (Criterion("l2", relative=True), 1.5),
        (Criterion("l1"), 1.5),
        (Criterion("mean", relative=True), 1.5),
        (Criterion("cosine"), 3.0),
        (Criterion("top-k", k=20), 1.5),
        (Criterion("into-top-k", k=50, features=tuple(range(300, 330))), 1.5),
        (Criterion("out-of-top-k", k=400, features=tuple(range(300, 330)), signed=True), 1.1),
    ],
    ids=lambda value: getattr(value, "measure", None),
)
def test_it_beats_chance_at_the_same_cost(criterion: Criterion, gain: float) -> None:
    case = Case.zoo("linf", 24)
    case = replace(case, criterion=criterion, config=ExplanationAttackConfig(steps=15))
    result = case.run()
    passes = int((result.forwards + result.backwards).max())
    chance = by_chance(case, passes // 3)  # a prediction, and an explanation forth and back
    assert (result.distance >= chance).float().mean() >= 0.9
    assert float(result.distance.mean()) > gain * float(chance.mean())


def test_without_a_surrogate_a_relu_net_is_searched_by_chance() -> None:
    case = Case.zoo("linf", 12)
    with_one = replace(case, config=ExplanationAttackConfig(steps=10)).run()
    without = replace(case, config=ExplanationAttackConfig(steps=10, surrogate=None)).run()
    assert (without.iteration <= 0).all(), "it moved, without a gradient"
    assert float(with_one.distance.mean()) > 2 * float(without.distance.mean())


def test_more_steps_and_restarts_never_bend_less() -> None:
    case = Case.zoo("linf", 12)
    found = [
        replace(case, config=ExplanationAttackConfig(steps=5, restarts=r)).run().distance
        for r in (1, 2, 3)
    ]
    assert (found[0] <= found[1]).all()
    assert (found[1] <= found[2]).all()
    assert (found[0] < found[2]).any()


@pytest.mark.slow
def test_towards_a_map_the_explanation_comes_near_to_it() -> None:
    """The map of another sample (Dombrowski et al., 2019), with logits that hardly change."""
    case = replace(Case.zoo("linf", 16), threat=ThreatModel.box("linf", 0.1))
    clean = explain(case.model, case.x, case.target).detach()
    toward = clean.roll(1, 0)

    def run(keep: float):
        config = ExplanationAttackConfig(steps=40, keep_logits=keep)
        return attack_explanations(
            case.model,
            case.x,
            case.target,
            case.ids,
            case.threat,
            case.explanation,
            case.criterion,
            config,
            0,
            toward=toward,
        )

    result = run(0.1)
    now = explain(case.model, result.adversarial, case.target).detach()
    before = case.criterion.distance(toward, clean)
    assert torch.equal(result.to_map, case.criterion.distance(toward, now))
    assert torch.equal(result.distance, case.criterion.distance(clean, now))
    assert (result.to_map <= before).all()
    assert float(result.to_map.mean()) < 0.6 * float(before.mean())
    assert float(likeness(toward, now).mean()) > float(likeness(toward, clean).mean())
    assert (case.model(result.adversarial).argmax(1) == case.target).all()
    free = run(0.0).adversarial

    def change(at: Tensor) -> float:
        return float((case.model(at) - case.model(case.x)).square().mean())

    assert change(run(3.0).adversarial) < 0.5 * change(free)


def test_the_mass_centre_moves() -> None:
    case = Case.zoo("linf", 16)
    clean = mass_centre(explain(case.model, case.x, case.target).detach())

    def moved(config: ExplanationAttackConfig) -> float:
        found = replace(case, criterion=Criterion("l1"), config=config).run().adversarial
        now = mass_centre(explain(case.model, found, case.target).detach())
        return float((now - clean).norm(dim=1).mean())

    aimed = moved(ExplanationAttackConfig(steps=20, aim="mass-centre"))
    assert aimed > 1.5 * moved(ExplanationAttackConfig(steps=20))


def test_the_mass_centre_of_a_block() -> None:
    explanation = torch.zeros(2, 3, 8, 9)
    explanation[0, :, 2:4, 5] = -2.0
    assert torch.allclose(mass_centre(explanation)[0], torch.tensor([2.5, 5.0]))
    assert torch.equal(mass_centre(explanation)[1], torch.zeros(2))
    assert torch.allclose(mass_centre(torch.tensor([[0.0, 1.0, -3.0]])), torch.tensor([[1.75]]))

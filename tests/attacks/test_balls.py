"""Starts and steps never leave the threat model, by not one bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_checks import MODELS, NORMS, Case, Norm, check_honest, check_inside
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.pgd import PGDConfig
from attacks.randomness import stream_keys
from attacks.threat import ThreatModel, feature_ranges

SHAPES = [(1,), (5,), (1, 3, 3), (3, 2, 4), (6, 2)]
EPS = [0.0, 1e-9, 8 / 255, 0.1, 0.3, 1.0, 7.5, 1e4]


def draw_problem(seed: int, norm: Norm, eps: float, shape: tuple[int, ...]) -> tuple:
    """A threat model with every kind of box, scale and mask, and samples inside (n, *shape)."""
    rng = np.random.default_rng(seed)
    if rng.integers(2):
        lower, upper = np.float32(rng.choice([0, -1, -0.3])), np.float32(rng.choice([1, 255, 0.7]))
    else:
        lower = rng.normal(size=shape).astype(np.float32) * np.float32(10.0 ** rng.integers(-3, 4))
        width = rng.choice([0.0, 1e-6, 1.0, 300.0], size=shape)  # some features cannot move
        upper = (lower + width * rng.uniform(size=shape)).astype(np.float32)
    place = rng.choice([0.0, 1.0, rng.uniform(), 1e-30], size=(4, *shape))
    place = np.where(rng.uniform(size=place.shape) < 0.5, rng.uniform(size=place.shape), place)
    x = np.clip((lower + (upper - lower) * place).astype(np.float32), lower, upper)
    scale = immutable = None
    if rng.integers(2):
        scale = torch.from_numpy(rng.choice([1e-3, 0.1, 1.0, 3.0, 90.0], size=shape)).float()
    if rng.integers(2):
        immutable = torch.from_numpy(rng.uniform(size=shape) < 0.4)
    return ThreatModel.box(
        norm, eps, torch.tensor(lower), torch.tensor(upper), immutable, scale
    ), torch.from_numpy(x)


def draw_gradient(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    gradient = rng.normal(size=shape) * 10.0 ** rng.integers(-42, 38)
    kind = rng.integers(5)
    if kind == 1:
        gradient = np.sign(gradient)  # ties everywhere
    elif kind == 2:
        gradient = np.where(rng.uniform(size=shape) < 0.7, 0.0, gradient)
    elif kind == 3:
        gradient = np.where(rng.uniform(size=shape) < 0.3, np.nan, gradient)
    elif kind == 4:
        gradient = np.where(rng.uniform(size=shape) < 0.3, np.inf, gradient)
    with np.errstate(over="ignore"):
        return torch.from_numpy(gradient.astype(np.float32))


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    eps=st.one_of(st.sampled_from(EPS), st.floats(0, 2)),
    shape=st.sampled_from(SHAPES),
    size=st.sampled_from([0.1, 0.25, 1.0, 1e4]),
)
def test_starts_and_steps_stay_inside(norm, seed, eps, shape, size):
    threat, x = draw_problem(seed, norm, eps, shape)
    ball, rng = Ball.around(threat, x), np.random.default_rng(seed)
    assert (ball.low <= x).all()
    assert (x <= ball.high).all()
    current = ball.start(stream_keys(seed, "test", range(len(x)), 0))
    check_inside(threat, x, current)
    for _ in range(4):
        current = ball.step(current, draw_gradient(rng, tuple(x.shape)), size * max(eps, 1e-12))
        check_inside(threat, x, current)
    if eps == 0:
        assert torch.equal(current, x)


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), eps=st.sampled_from(EPS), shape=st.sampled_from(SHAPES))
def test_attacks_stay_inside(norm, seed, eps, shape):
    threat, x = draw_problem(seed, norm, eps, shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed % 1000)
        module = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3)).eval()
    y = TiledClassifier(module).logits(x).argmax(1)
    config = PGDConfig(steps=3, restarts=2, step_size=0.5 * max(eps, 1e-12))
    case = Case(module, x, y, torch.arange(len(x)), threat, config)
    check_honest(case, case.run())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MODELS)
def test_attacks_on_networks_are_honest(name, norm):
    case = Case.make(name, norm)
    result = case.run()
    check_honest(case, result)
    share = float(result.found.double().mean())
    assert 0.1 < share < 0.95, "the case would test little"
    held = torch.zeros(case.x.shape[1:], dtype=torch.bool).bernoulli(
        0.5, generator=torch.Generator().manual_seed(0)
    )
    masked = replace(case, threat=replace(case.threat, immutable=held))
    check_honest(masked, masked.run())


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball(norm):
    """Away from the box: inside, on no axis preferred, and near the rim as a uniform point is."""
    d, n, eps = 6, 4000, 0.5
    x = torch.zeros(n, d)
    ball = Ball.around(ThreatModel.box(norm, eps, -9.0, 9.0), x)
    z = ball.start(stream_keys(0, "test", range(n), 0)).double()
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    radius = torch.linalg.vector_norm(z, order, dim=1) / eps
    assert float(radius.max()) <= 1
    # P(radius < r) = r^d for a uniform point of any norm ball
    for r in (0.5, 0.8, 0.9, 0.95):
        assert float((radius < r).double().mean()) == pytest.approx(r**d, abs=0.03)
    assert z.mean(0).abs().max() < 0.02
    assert z.std(0) == pytest.approx(float(z.std()) * torch.ones(d), rel=0.06)


def test_a_direction_of_length_zero_starts_at_the_sample(monkeypatch):
    monkeypatch.setattr("attacks.balls.gaussian", lambda keys, d, offset: torch.zeros(len(keys), d))
    x = torch.full((2, 1), 0.5)
    start = Ball.around(ThreatModel.box("l2", 0.1), x).start(torch.tensor([1, 2]))
    assert torch.equal(start, x)


def test_a_scaled_radius_is_not_rounded_up():
    eps = 0.23888888888888887  # times 90 it is 21.5 when rounded; 21.5 / 90 is one bit above eps
    threat = ThreatModel.box("linf", eps, -100.0, 100.0, scale=torch.tensor([90.0]))
    x = torch.zeros(1, 1)
    for end in threat.bounds(x):
        check_inside(threat, x, end)
        assert abs(float(end)) == pytest.approx(21.5, rel=1e-6)


def test_feature_ranges_of_a_constant_feature():
    ranges = feature_ranges(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 2.0]), (2,))
    assert ranges.tolist() == [4.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": float("inf")}, "eps is inf"),
        ({"norm": "l3"}, "unknown norm 'l3'"),
        ({"lower": 2.0}, "box is empty"),
        ({"upper": float("inf")}, "not finite"),
        ({"immutable": torch.ones(3)}, "must be bool"),
        ({"scale": torch.tensor([0.0, 1.0])}, "positive"),
    ],
)
def test_impossible_threat_models_are_refused_in_one_line(change, message):
    with pytest.raises(AttackError, match=message) as caught:
        ThreatModel.box(**({"norm": "linf", "eps": 0.1} | change))
    assert "\n" not in str(caught.value)


def test_a_box_of_another_shape_is_refused():
    with pytest.raises(AttackError, match=r"lower has shape \(3,\)"):
        ThreatModel.box("linf", 0.1, torch.zeros(3), 1.0).check_shape((4,))


def test_the_hash_of_a_threat_model_sees_everything():
    mask, scale = torch.tensor([True, False]), torch.tensor([1.0, 2.0])
    models = [
        ThreatModel.box("linf", 0.1),
        ThreatModel.box("l2", 0.1),
        ThreatModel.box("linf", 0.2),
        ThreatModel.box("linf", 0.1, upper=2.0),
        ThreatModel.box("linf", 0.1, immutable=mask),
        ThreatModel.box("linf", 0.1, immutable=~mask),
        ThreatModel.box("linf", 0.1, scale=scale),
    ]
    assert len({model.sha256() for model in models}) == len(models)
    assert models[0].sha256() == ThreatModel.box("linf", 0.1).sha256()

"""Certified training: every loss bounds the worst point's, and its gradient is the loss's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.adversarial import PGDTraining
from attacks.balls import Ball
from attacks.objectives import standard, worst
from attacks.threat import ThreatModel
from certify.errors import UnsupportedError
from certify.training import cc_ibp, crown_ibp, ibp, ibp_initialisation, mtl_ibp, sabr, verified
from certify.training.crown_ibp import fused_loss, linear_rivals
from certify.training.ibp import worst_logits
from certify.training.network import box, intervals, program, rivals
from certify.training.sabr import small_box

LOWER, UPPER, EPS = torch.tensor(0.0), torch.tensor(1.0), 0.05
ATTACK = {"steps": 3, "step_size": 0.03}
BOUNDS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "ibp": (ibp, {}),
    "crown-ibp": (crown_ibp, {"beta_end": 1.0}),
    "crown-ibp unfused": (crown_ibp, {"beta_end": 1.0, "fusion": False}),
    "crown-ibp half": (crown_ibp, {"beta_end": 0.5}),
    "sabr as ibp": (sabr, {"size": 1.0, **ATTACK}),
}
MIXTURES: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "ibp with clean": (ibp, {"kappa_end": 0.5}),
    "mtl-ibp": (mtl_ibp, {"alpha": 0.3, **ATTACK}),
    "cc-ibp": (cc_ibp, {"alpha": 0.3, **ATTACK}),
    "sabr": (sabr, {"size": 0.4, **ATTACK}),
}
ALL = BOUNDS | MIXTURES


class Residual(nn.Module):
    """Convolutions with a skip connection, pooling and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.hidden, self.head = nn.Linear(4 * 9, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        early = self.first(x).relu()
        late = (self.second(early) + early).relu()
        result: Tensor = self.head(self.hidden(F.avg_pool2d(late, 2).flatten(1)).relu())
        return result


def fresh(kind: type[nn.Module] = Residual, dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().to(dtype).train()


net = cache(fresh)  # for tests that leave the model as it is: it is traced once


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(1)
    return torch.rand(12, 1, 6, 6, generator=generator), torch.arange(12) % 4


def call(name: str, model: nn.Module, x: Tensor, y: Tensor, **changes: Any) -> Tensor:
    function, settings = ALL[name]
    given = {"generator": Generator().manual_seed(0), "scale": 1.0, "norm": "linf", "eps": EPS}
    return function(model, x, y, **(given | {"lower": LOWER, "upper": UPPER} | settings | changes))


def attacked(model: nn.Module, x: Tensor, y: Tensor, eps: float = EPS) -> Tensor:
    ball = Ball.around(ThreatModel("linf", eps, LOWER, UPPER), x)
    return worst(model, ball, y, Generator().manual_seed(3), 20, eps / 4)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("eps", [0.01, 0.05, 0.3])
def test_a_bound_is_above_the_worst_point_found(batch, name, eps):
    model, (x, y) = net(), batch
    for row in range(2):
        one, label = x[row : row + 1], y[row : row + 1]
        found = F.cross_entropy(model(attacked(model, one, label, eps)), label)
        assert call(name, model, one, label, eps=eps) > found


@pytest.mark.parametrize("name", ALL)
def test_eps_0_is_plain_cross_entropy(batch, name):
    model, (x, y) = net(), batch
    plain = standard(model, x, y, generator=Generator(), scale=1.0)
    for change in ({"eps": 0.0}, {"scale": 0.0}):
        torch.testing.assert_close(call(name, model, x, y, **change), plain)


@pytest.mark.parametrize("name", ["ibp", "crown-ibp", "crown-ibp unfused"])
def test_gradients_are_those_of_finite_differences(batch, name):
    model = fresh(dtype=torch.float64)
    x, y = batch[0][:3].double(), batch[1][:3]
    weights = list(model.parameters())
    gradients = torch.autograd.grad(call(name, model, x, y), weights)
    generator = Generator().manual_seed(2)
    for _ in range(3):
        moves = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
        expected = sum(float((g * m).sum()) for g, m in zip(gradients, moves, strict=True))
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for weight, move in zip(weights, moves, strict=True):
                    weight.add_(move, alpha=step)
                ends.append(float(call(name, model, x, y)))
                for weight, move in zip(weights, moves, strict=True):
                    weight.sub_(move, alpha=step)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_training_lowers_the_loss_and_leaves_modes(batch, name):
    model, (x, y) = fresh(), batch
    x = 0.2 * x + 0.25 * y[:, None, None, None]  # brighter from class to class
    modes = [part.training for part in model.modules()]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        loss = call(name, model, x, y, eps=0.01)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert [part.training for part in model.modules()] == modes


@pytest.mark.parametrize("name", BOUNDS)
def test_the_batch_loss_is_the_mean_of_each_sample_alone(batch, name):
    model, (x, y) = net(), batch
    alone = [call(name, model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    torch.testing.assert_close(call(name, model, x, y), torch.stack(alone).mean())


def test_last_layer_takes_differences_of_weights(batch):
    model, (x, y) = net(), batch
    network = program(model, x)
    values = intervals(network, box(x, EPS, LOWER, UPPER))
    gaps, logits = rivals(network, values, y), values[network.output]
    own = torch.arange(len(y)), y
    assert torch.equal(gaps.upper[own], torch.zeros(len(y)))
    apart = logits.upper - logits.lower[own][:, None]
    other = torch.ones_like(apart, dtype=torch.bool)
    other[own] = False
    assert (gaps.upper < apart)[other].all()
    found = model(attacked(model, x, y))
    difference = found - found[own][:, None]
    assert (gaps.lower <= difference + 1e-5).all()
    assert (difference <= gaps.upper + 1e-5).all()


def test_linear_bounds_hold_and_are_tighter_than_intervals(batch):
    model, (x, y) = net(), batch
    for eps in (0.01, 0.05):
        network = program(model, x)
        values = intervals(network, box(x, eps, LOWER, UPPER))
        linear, gaps = linear_rivals(network, values, y), rivals(network, values, y)
        found = model(attacked(model, x, y, eps))
        assert (linear >= found - found.gather(1, y[:, None]) - 1e-5).all()
        assert linear.sum() < 0.9 * gaps.upper.sum()


def test_where_every_neuron_is_stable_linear_bounds_are_exact(batch):
    x, y = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        model[1].bias.fill_(50.0)
    y = y % 3
    network = program(model, x)
    values = intervals(network, box(x, EPS, LOWER, UPPER))
    slope = (model[3].weight[None] - model[3].weight[y][:, None]) @ model[1].weight
    middle = box(x, EPS, LOWER, UPPER)
    expected = model(middle.center) - model(middle.center).gather(1, y[:, None])
    expected = expected + (slope.abs() @ middle.radius.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(linear_rivals(network, values, y), expected, rtol=1e-4, atol=1e-4)


class Two(nn.Module):
    """Two classes: a single rival, for which fusing has nothing to join."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


def test_fusion_of_one_rival_adds_the_chord_alone(batch):
    model, x, y = net(Two), batch[0], batch[1] % 2
    network = program(model, x)
    values = intervals(network, box(x, EPS, LOWER, UPPER))
    gaps = rivals(network, values, y)
    fused = fused_loss(network, values, gaps, y)
    rival = linear_rivals(network, values, y).gather(1, 1 - y[:, None])[:, 0]
    low = gaps.lower.gather(1, 1 - y[:, None])[:, 0]
    high = gaps.upper.gather(1, 1 - y[:, None])[:, 0]
    chord = low.exp() + (high.exp() - low.exp()) / (high - low) * (rival - low)
    torch.testing.assert_close(fused, (1 + chord).log())
    above = fused >= (1 + rival.exp()).log() - 1e-6
    assert above[rival <= high].all()  # the chord is above exp between its ends alone
    assert above.any()


def test_fused_loss_survives_huge_bounds(batch):
    model, (x, y) = fresh(), batch
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(30)
    loss = call("crown-ibp", model, x, y)
    assert torch.isfinite(loss)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_what_has_no_linear_bound_is_taken_by_its_interval(batch):
    x, y = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.Hardtanh(), nn.Linear(6, 4))
    try:
        network = program(model, x)
        values = intervals(network, box(x, EPS, LOWER, UPPER))
    except UnsupportedError as error:
        pytest.skip(f"no interval rule: {error}")
    linear, gaps = linear_rivals(network, values, y), rivals(network, values, y)
    torch.testing.assert_close(linear, gaps.upper)


def test_alpha_goes_from_the_attack_to_the_bound(batch):
    model, (x, y) = net(), batch
    proved = call("ibp", model, x, y)
    pgd = PGDTraining(norm="linf", eps=EPS, lower=LOWER, upper=UPPER, **ATTACK)
    attack = pgd(model, x, y, generator=Generator().manual_seed(0), scale=1.0)
    for name in ("mtl-ibp", "cc-ibp"):
        torch.testing.assert_close(call(name, model, x, y, alpha=1.0), proved)
        torch.testing.assert_close(call(name, model, x, y, alpha=0.0), attack)
    half = call("mtl-ibp", model, x, y, alpha=0.5)
    torch.testing.assert_close(half, (proved + attack) / 2)
    assert attack < call("cc-ibp", model, x, y, alpha=0.5) < half


def test_an_attack_of_a_larger_radius_is_worse(batch):
    model, (x, y) = net(), batch
    wide = call("mtl-ibp", model, x, y, alpha=0.0, attack_multiplier=2.0, steps=10)
    assert wide > call("mtl-ibp", model, x, y, alpha=0.0, steps=10)


def test_kappa_and_beta_follow_the_warm_up(batch):
    model, (x, y) = net(), batch
    plain = standard(model, x, y, generator=Generator(), scale=1.0)
    proved = call("ibp", model, x, y, scale=0.5)
    mixed = call("ibp", model, x, y, scale=0.5, kappa_start=1.0, kappa_end=0.5)
    torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * proved)
    linear = call("crown-ibp", model, x, y, scale=0.5, beta_start=1.0, beta_end=1.0)
    mixed = call("crown-ibp", model, x, y, scale=0.5, beta_start=1.0, beta_end=0.0)
    torch.testing.assert_close(mixed, (linear + proved) / 2)
    assert torch.equal(call("crown-ibp", model, x, y, beta_end=0.0), call("ibp", model, x, y))


def test_the_small_box_lies_in_the_large_one(batch):
    model, (x, y) = net(), batch
    point = attacked(model, x, y, EPS * 0.6)
    small, large = small_box(x, point, EPS, 0.4, LOWER, UPPER), box(x, EPS, LOWER, UPPER)
    assert (large.lower <= small.lower).all()
    assert (small.upper <= large.upper).all()
    assert (small.lower <= point).all()
    assert (point <= small.upper).all()
    assert (small.upper - small.lower).amax() == pytest.approx(2 * 0.4 * EPS, rel=1e-3)
    bound = call("sabr", model, x, y)
    assert bound < call("ibp", model, x, y)
    assert bound > F.cross_entropy(model(point), y) - 0.05


def test_graph_is_traced_once_and_weights_stay_present(batch, monkeypatch):
    model, (x, y) = fresh(), batch
    first = call("ibp", model, x, y)
    monkeypatch.setattr("certify.training.network.trace_model", None)
    with torch.no_grad():
        model.head.weight.mul_(2)
    assert call("ibp", model, x[:5], y[:5]) != call("ibp", model, x, y) != first


class WithNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)
        )


@pytest.mark.parametrize("name", ALL)
def test_batch_norm_keeps_learning_its_statistics(batch, name):
    model, (x, y) = fresh(WithNorm), batch
    before = model[1].running_mean.clone()
    call(name, model, x, y).backward()
    assert not torch.equal(model[1].running_mean, before)
    assert model.training
    statistics = model[1].running_mean.clone()
    model.eval()
    verified(model, x, y, EPS, LOWER, UPPER)
    assert torch.equal(model[1].running_mean, statistics)


def test_batch_norm_is_bounded_as_it_trains(batch):
    """At eps 0 bounds are the network's own training, and so is their gradient."""
    (x, y), found = batch, []
    for loss in (
        lambda model: F.cross_entropy(worst_logits(model, x, y, 0.0, LOWER, UPPER), y),
        lambda model: F.cross_entropy(model(x), y),
    ):
        model = fresh(WithNorm)
        value = loss(model)
        value.backward()
        running = [model[1].running_mean, model[1].running_var, model[1].num_batches_tracked]
        found.append([value.detach(), *(p.grad for p in model.parameters()), *running])
    for bounded, own in zip(*found, strict=True):
        torch.testing.assert_close(bounded, own, rtol=1e-4, atol=1e-6)


def test_verified_samples_are_those_of_negative_worst_margins(batch):
    model, (x, y) = net(), batch
    y = model(x).argmax(1)
    with torch.no_grad():
        y[0] = (y[0] + 1) % 4
        worst_ones = worst_logits(model, x, y, 1e-3, LOWER, UPPER)
    expected = worst_ones.argmax(1) == y
    assert torch.equal(verified(model, x, y, 1e-3, LOWER, UPPER), expected)
    assert expected[1:].any()
    assert not expected[0]
    assert not verified(model, x, y, 1.0, LOWER, UPPER).any()


def test_initialisation_keeps_the_width_of_intervals():
    def widths(model: nn.Module) -> list[float]:
        x = torch.rand(4, 400, generator=Generator().manual_seed(0))
        network = program(model, x)
        values = intervals(network, box(x, EPS, LOWER, UPPER))
        found = [values[node.index] for node in network.nodes if node.shape[-1] == 400]
        return [float(value.radius.detach().mean()) for value in found]

    layers = [part for _ in range(5) for part in (nn.Linear(400, 400), nn.ReLU())]
    model = nn.Sequential(*layers).eval()
    usual = widths(model)
    ibp_initialisation(model, Generator().manual_seed(0))
    ours = widths(model)
    assert usual[-1] > 100 * usual[0]
    assert 0.5 < ours[-2] / ours[0] < 2
    assert not model[0].bias.any()
    again = nn.Sequential(*[part for _ in range(5) for part in (nn.Linear(400, 400), nn.ReLU())])
    ibp_initialisation(again, Generator().manual_seed(0))
    assert torch.equal(again[0].weight, model[0].weight)

"""Adversarial training methods: the value is the formula, and the points are legal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from attack_checks import NORMS, check_inside
from torch import Generator, Tensor, nn

from attacks.adversarial import PGDTraining
from attacks.awp import AWP
from attacks.errors import AttackError
from attacks.fast import GradAlign, NoisyFGSM
from attacks.free import Free
from attacks.mart import Mart
from attacks.threat import ThreatModel
from attacks.trades import Trades

LOWER, UPPER = torch.tensor([-1.0, 0.0, 0.0, -2.0, 0.0]), torch.tensor([1.0, 1.0, 3.0, 2.0, 0.5])
BOX: dict[str, Any] = {"norm": "linf", "eps": 0.1, "lower": LOWER, "upper": UPPER}
STEPS = BOX | {"steps": 3, "step_size": 0.05}
FAR = STEPS | {"eps": 1.0, "step_size": 0.5}  # so far that KL and KL the other way round differ
MAKE = {
    "pgd": lambda **k: PGDTraining(**(STEPS | k)),
    "trades": lambda **k: Trades(**(STEPS | k)),
    "mart": lambda **k: Mart(**(STEPS | k)),
    "n-fgsm": lambda **k: NoisyFGSM(**(BOX | k)),
    "gradalign": lambda **k: GradAlign(**(BOX | k)),
    "free": lambda **k: Free(**(BOX | k)),
    "awp": lambda **k: AWP(base=PGDTraining(**(STEPS | k))),
}
CRAFTING = ["pgd", "trades", "mart", "n-fgsm", "gradalign"]


def net(classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def batch(classes: int = 3) -> tuple[Tensor, Tensor]:
    g = Generator().manual_seed(1)
    x = LOWER + (UPPER - LOWER) * torch.rand(20, 5, generator=g)
    return x, torch.randint(classes, (20,), generator=g)


def value(objective: Any, model: nn.Module, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
    found: Tensor = objective(model, x, y, generator=Generator().manual_seed(2), scale=scale)
    return found


def craft(objective: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    found: Tensor = objective.craft(model, x, y, generator=Generator().manual_seed(2), scale=1.0)
    return found


def probabilities(model: nn.Module, x: Tensor) -> list[list[float]]:
    return copy.deepcopy(model)(x).double().softmax(1).tolist()


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * float(torch.log(torch.tensor(a / b))) for a, b in zip(p, q, strict=True))


def log(p: float) -> float:
    return float(torch.log(torch.tensor(p, dtype=torch.float64)))


@pytest.mark.parametrize("classes", [2, 3])
def test_trades_is_its_formula(classes):
    model, (x, y) = net(classes), batch(classes)
    objective = Trades(**FAR, beta=3.0)
    near = probabilities(model, craft(objective, model, x, y))
    clean = probabilities(model, x)
    rows = zip(clean, near, y.tolist(), strict=True)
    wanted = sum(-log(p[k]) + 3.0 * kl(p, q) for p, q, k in rows) / 20
    assert value(objective, model, x, y).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_mart_is_its_formula(classes):
    model, (x, y) = net(classes), batch(classes)
    objective = Mart(**FAR, beta=3.0)
    near = probabilities(model, craft(objective, model, x, y))
    clean = probabilities(model, x)
    wanted = 0.0
    for p, q, k in zip(clean, near, y.tolist(), strict=True):
        rival = max(v for i, v in enumerate(q) if i != k)
        wanted += (-log(q[k]) - log(1 - rival) + 3.0 * kl(p, q) * (1 - p[k])) / 20
    assert value(objective, model, x, y).item() == pytest.approx(wanted, rel=1e-4)


def test_mart_stays_finite_where_the_rival_is_certain():
    model, y = nn.Linear(5, 3), torch.tensor([0, 0])
    nn.init.zeros_(model.weight)
    model.bias.data = torch.tensor([0.0, 300.0, 0.0])
    loss = value(Mart(**STEPS), model, batch()[0][:2], y)
    loss.backward()
    # -log p_y = 300, and -log(1 - p_rival) = 300 less the logarithm of the two others
    assert loss.item() == pytest.approx(600 - log(2.0), rel=1e-5)
    assert model.bias.grad is not None
    assert model.bias.grad.isfinite().all()


def test_trades_raises_the_divergence():
    model, (x, y) = net().eval(), batch()
    objective = Trades(**STEPS)
    start = craft(Trades(**(STEPS | {"steps": 0})), model, x, y)
    end = craft(objective, model, x, y)
    clean = probabilities(model, x)

    def apart(points: Tensor) -> float:
        return sum(map(kl, clean, probabilities(model, points)))

    assert apart(end) > 10 * apart(start) > 0


@pytest.mark.parametrize("name", CRAFTING)
def test_points_are_legal_and_the_model_is_as_it_was(name):
    model, (x, y) = net(), batch()
    before = copy.deepcopy(model.state_dict())
    points = craft(MAKE[name](), model, x, y)
    assert not points.requires_grad
    assert not torch.equal(points, x)
    reach = 0.3 if name == "n-fgsm" else 0.1
    check_inside(ThreatModel("linf", reach + (1e-6 if reach > 0.1 else 0), LOWER, UPPER), x, points)
    for key, old in before.items():
        assert torch.equal(model.state_dict()[key], old), key
    assert all(part.training for part in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["pgd", "trades", "mart"])
def test_every_norm_of_a_search_is_legal(name, norm):
    x, y = batch()
    points = craft(MAKE[name](norm=norm), net(), x, y)
    check_inside(ThreatModel(norm, 0.1, LOWER, UPPER), x, points)


def test_n_fgsm_steps_from_its_noise_and_is_not_clipped_to_eps():
    model, (x, y) = net().eval(), batch()
    start = craft(NoisyFGSM(**BOX, alpha=0.0), model, x, y)
    end = craft(NoisyFGSM(**BOX), model, x, y)
    leaf = start.clone().requires_grad_()
    nn.functional.cross_entropy(model(leaf), y).backward()
    assert leaf.grad is not None
    wanted = (start + 0.1 * leaf.grad.sign()).clamp(LOWER, UPPER)
    torch.testing.assert_close(end, wanted)
    assert (start - x).abs().max() > 0.15
    assert (end - x).abs().max() > 0.2


def test_gradalign_is_its_formula():
    model, (x, y) = net().eval(), batch()
    objective = GradAlign(**BOX, weight=0.7)
    drawn = torch.empty_like(x).uniform_(-1, 1, generator=Generator().manual_seed(2))
    near = (x + 0.1 * drawn).clamp(LOWER, UPPER)
    turned = 0.0
    for i in range(20):
        pair = []
        for point in (x[i : i + 1], near[i : i + 1]):
            leaf = point.clone().requires_grad_()
            nn.functional.cross_entropy(model(leaf), y[i : i + 1]).backward()
            assert leaf.grad is not None
            pair.append(leaf.grad.double().flatten())
        turned += (1 - float(pair[0] @ pair[1] / (pair[0].norm() * pair[1].norm()))) / 20
    points = craft(objective, model, x, y)
    assert turned > 1e-3
    wanted = nn.functional.cross_entropy(model(points), y).item() + 0.7 * turned
    assert value(objective, model, x, y).item() == pytest.approx(wanted, rel=1e-4)


def test_both_gradients_of_gradalign_are_trained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    objective, (x, y) = GradAlign(**(BOX | {"eps": 0.5})), batch()

    def turned() -> Tensor:
        drawn = Generator().manual_seed(2)
        return objective.turned(model, x, y, generator=drawn, scale=1.0)

    turned().backward()
    weight, step = model[0].weight, 0.01
    assert isinstance(weight, Tensor)
    assert weight.grad is not None
    slope, uphill = weight.grad.norm().item(), weight.grad / weight.grad.norm()
    with torch.no_grad():
        weight += step * uphill
    above = turned().item()
    with torch.no_grad():
        weight -= 2 * step * uphill
    assert (above - turned().item()) / (2 * step) == pytest.approx(slope, rel=0.02)


def test_the_gradient_of_a_linear_model_does_not_turn():
    x, y = batch(2)
    linear = nn.Linear(5, 2)  # of two classes: of more, the softmax turns it
    drawn = {"generator": Generator().manual_seed(2), "scale": 1.0}
    assert GradAlign(**BOX).turned(linear, x, y, **drawn).item() == pytest.approx(0, abs=1e-6)


def test_gradalign_leaves_out_samples_without_a_gradient():
    x, y = batch()
    dead = nn.Linear(5, 3)
    nn.init.zeros_(dead.weight)
    loss = value(GradAlign(**BOX), dead, x, y)
    loss.backward()
    assert dead.weight.grad is not None
    assert dead.weight.grad.isfinite().all()
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(dead(x), y).item())


@pytest.mark.parametrize("name", list(MAKE))
def test_gradients_reach_every_weight(name):
    model = net()
    value(MAKE[name](), model, *batch()).backward()
    for key, weight in model.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.isfinite().all(), key
        assert weight.grad.abs().sum() > 0 or key == "0.bias", key  # batch norm takes it away


@pytest.mark.parametrize("name", ["pgd", "trades", "n-fgsm", "gradalign", "free"])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_eps_0_is_training_on_the_samples(name, scale):
    model, (x, y) = net(), batch()
    objective = MAKE[name](eps=0.1 if scale == 0 else 0.0)
    plain = nn.functional.cross_entropy(copy.deepcopy(model)(x), y)
    torch.testing.assert_close(value(objective, model, x, y, scale), plain)


def test_awp_moves_no_weights_before_the_warm_up():
    model, (x, y) = net(), batch()
    plain = nn.functional.cross_entropy(copy.deepcopy(model)(x), y)
    torch.testing.assert_close(value(MAKE["awp"](), model, x, y, 0.0), plain)


def test_awp_is_the_loss_at_the_moved_weights_and_leaves_the_weights():
    model, (x, y) = net(), batch()
    base = PGDTraining(**STEPS)
    points = craft(base, model, x, y)
    moved, first = copy.deepcopy(model), copy.deepcopy(model)
    nn.functional.cross_entropy(first(points), y).backward()
    for weight, seen in zip(moved.parameters(), first.parameters(), strict=True):
        if weight.dim() > 1:
            assert seen.grad is not None
            weight.data += 0.05 * weight.data.norm() * seen.grad / seen.grad.norm()
    wanted = nn.functional.cross_entropy(moved(points), y)
    wanted.backward()

    before = {name: weight.clone() for name, weight in model.named_parameters()}
    held = {name: id(weight) for name, weight in model.named_parameters()}
    found = value(AWP(base=base, gamma=0.05), model, x, y)
    found.backward()
    torch.testing.assert_close(found, wanted)
    assert found > nn.functional.cross_entropy(copy.deepcopy(model)(points), y)
    for (name, weight), other in zip(model.named_parameters(), moved.parameters(), strict=True):
        assert torch.equal(weight, before[name]), name
        assert id(weight) == held[name]
        torch.testing.assert_close(weight.grad, other.grad)
    for name, buffer in model.named_buffers():  # one forward pass in training mode, not two
        torch.testing.assert_close(buffer, moved.state_dict()[name])


def test_awp_takes_both_losses_under_the_same_noise():
    drawn = []

    class Drawing(PGDTraining):
        def value(self, model, x, points, y, *, generator, scale):
            drawn.append(torch.rand(3, generator=generator))
            return super().value(model, x, points, y, generator=generator, scale=scale)

    value(AWP(base=Drawing(**STEPS)), net(), *batch())
    assert len(drawn) == 2
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", CRAFTING)
def test_awp_with_gamma_0_is_its_base(name):
    x, y = batch()
    wanted = value(MAKE[name](), net(), x, y)
    found = value(AWP(base=MAKE[name](), gamma=0.0), net(), x, y)
    torch.testing.assert_close(found, wanted)


def test_free_moves_by_the_gradient_of_its_own_backward_pass():
    model, (x, y) = net(), batch()
    free, seen = Free(**BOX), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    wanted = x
    for step in range(3):
        plain = net()
        plain.load_state_dict(model.state_dict())
        leaf = wanted.clone().requires_grad_()
        nn.functional.cross_entropy(plain(leaf), y).backward()
        value(free, model, x, y).backward()
        torch.testing.assert_close(seen[step], wanted)
        check_inside(ThreatModel("linf", 0.1, LOWER, UPPER), x, seen[step])
        assert leaf.grad is not None
        ahead = wanted + 0.1 * leaf.grad.sign()
        wanted = ahead.clamp(x - 0.1, x + 0.1).clamp(LOWER, UPPER)


def test_free_keeps_its_perturbation_until_an_epoch_begins():
    model, (x, y) = net(), batch()
    free = Free(**BOX)
    clean = value(free, model.eval(), x, y)
    clean.backward()
    smaller = value(free, model, x[:7], y[:7])  # a smaller batch, then a larger one
    assert smaller > nn.functional.cross_entropy(model(x[:7]), y[:7])
    smaller.backward()
    assert value(free, model, x, y).isfinite()
    free.begin()
    assert torch.equal(value(free, model, x, y), clean)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("trades", {"beta": -1.0}, "beta is -1.0"),
        ("mart", {"beta": float("nan")}, "beta is nan"),
        ("pgd", {"steps": -1}, "steps is -1"),
        ("pgd", {"eps": -0.1}, "eps is -0.1"),
        ("n-fgsm", {"noise": -1.0}, "noise is -1.0"),
        ("gradalign", {"weight": -1.0}, "weight is -1.0"),
        ("gradalign", {"alpha": -1.0}, "alpha is -1.0"),
        ("free", {"replays": 0}, "replays is 0"),
        ("free", {"norm": "l3"}, "unknown norm 'l3'"),
    ],
)
def test_what_is_out_of_range_is_refused(name, change, message):
    with pytest.raises(AttackError, match=message):
        MAKE[name](**change)


def test_awp_needs_a_base_that_crafts():
    with pytest.raises(AttackError, match="awp needs a base that crafts"):
        AWP(base=Free(**BOX))
    with pytest.raises(AttackError, match="gamma is -1"):
        AWP(base=PGDTraining(**STEPS), gamma=-1.0)

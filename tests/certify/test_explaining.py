"""Certified explanations: nothing attained lies outside, and published defects stay mended."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from explanation_nets import CLASSES, NETS, SHAPE, in_short, net
from torch import Tensor, nn

from attacks.explanations import Explanation, explain, seeds
from attacks.threat import ThreatModel, WeightBudget
from certify.errors import CertifyError, UnsupportedError
from certify.explaining import METHODS, ExplanationCertifier, train_box
from certify.interval import Interval

TARGET = torch.tensor([0, 1, 2])
KINDS: dict[str, Callable[[], Explanation]] = {
    "gradient": Explanation,
    "loss": lambda: Explanation(of="loss"),
    "margin": lambda: Explanation("absolute-gradient", "margin"),
    "input-x-gradient": lambda: Explanation("input-x-gradient"),
    "integrated-gradients": lambda: Explanation(
        "integrated-gradients", steps=3, baseline=torch.full(SHAPE, 0.2)
    ),
    "smoothgrad": lambda: Explanation.smoothgrad(SHAPE, 3, 0.1),
}


def samples(seed: int = 0) -> Tensor:
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(seed))


def other(explanation: Explanation) -> Tensor | None:
    return (TARGET + 1) % CLASSES if explanation.of == "margin" else None


def moved(model: nn.Module, budget: WeightBudget | None, corner: bool) -> nn.Module:
    if budget is None:
        return model
    model = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            low, high = budget.bounds(weight)
            u = torch.rand(weight.shape)
            weight.copy_(low + (u.round() if corner else u) * (high - low)).clamp_(low, high)
    return model


def check(
    model: nn.Module,
    explanation: Explanation,
    eps: float,
    budget: WeightBudget | None,
    method: str,
    points: int = 6,
    box: Interval | None = None,
) -> Interval:
    """No random or corner point, in float32 or in float64, has an explanation out of its box."""
    x, threat = samples(), ThreatModel.box("linf", eps)
    if box is None:
        certifier = ExplanationCertifier(model, x, explanation)
        seed = seeds(explanation, TARGET, CLASSES, other(explanation))
        box = certifier.box(x, seed, threat, budget, method)
    assert bool((box.lower <= box.upper).all())
    low, high = threat.bounds(x)
    for trial in range(points):
        u = torch.rand(x.shape)
        point = (low + (u.round() if trial % 2 else u) * (high - low)).clamp(low, high)
        model_ = moved(model, budget, trial % 2 == 1)
        for kind in (torch.float32, torch.float64):
            exact = copy.deepcopy(model_).to(kind)
            value = explain(exact, point.to(kind), TARGET, explanation, other(explanation))
            worst = torch.maximum(box.lower - value, value - box.upper).max()
            assert not worst > 0, f"{worst:.3g} outside"
    return box


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", in_short(NETS))
def test_nothing_lies_outside(name: str, method: str) -> None:
    check(net(name), Explanation(), 0.1, None, method)
    check(net(name), Explanation(of="loss"), 0.02, WeightBudget(0.02), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", in_short(["relu", "sigmoid, images", "max pooling"]))
def test_every_explanation(name: str, kind: str, method: str) -> None:
    explanation = KINDS[kind]()
    for budget in (None, WeightBudget(0.01), WeightBudget(0.01, relative=False)):
        check(net(name), explanation, 0.05, budget, method)


@pytest.mark.parametrize("name", NETS)
def test_at_a_point_the_box_is_the_gradient_in_float64(name: str) -> None:
    model, x = net(name).double(), samples().double()
    value = explain(model, x, TARGET).detach()
    certifier = ExplanationCertifier(model, x, Explanation())
    for method in METHODS:
        box = certifier.box(x, torch.eye(CLASSES).double(), None, WeightBudget(0.0), method)
        assert bool(((box.lower <= value) & (value <= box.upper)).all())
        # relative to the size of a gradient; where units are all off, it and its box are zero
        width, size = float((box.upper - box.lower).max()), float(value.abs().amax())
        assert width <= 1e-9 * max(size, 1e-200)


@pytest.mark.parametrize("name", NETS)
def test_at_a_point_the_box_in_float32_holds_the_float64_value(name: str) -> None:
    model, x = net(name), samples()
    value = explain(copy.deepcopy(model).double(), x.double(), TARGET)
    certifier = ExplanationCertifier(model, x, Explanation())
    for method in METHODS:
        box = certifier.box(x, torch.eye(CLASSES), method=method)
        assert bool(((box.lower <= value) & (value <= box.upper)).all())
        # a few hundred roundings of numbers of the size of the weights' products
        assert float((box.upper - box.lower).max()) <= 2e-4 * float(1 + value.detach().abs().amax())


@pytest.mark.parametrize("name", in_short(NETS, 1))
def test_boxes_of_a_batch_are_those_of_its_samples(name: str) -> None:
    """`batch summing`: auto_LiRPA 0.7.1 adds the samples' Jacobian bounds up."""
    model, x = net(name), samples()
    certifier, threat = ExplanationCertifier(model, x, Explanation()), ThreatModel.box("linf", 0.05)
    seed = torch.eye(CLASSES)
    for method in METHODS:
        whole = certifier.box(x, seed, threat, None, method)
        for i in range(len(x)):
            one = certifier.box(x[i : i + 1], seed[i : i + 1], threat, None, method)
            for mine, theirs in ((whole.lower, one.lower), (whole.upper, one.upper)):
                assert torch.allclose(mine[i : i + 1], theirs, rtol=1e-3, atol=1e-5)


def test_first_layer_mask() -> None:
    """The published code multiplies by masks from the second layer on (`if i > 1`)."""
    weight = torch.tensor([[1.0]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(weight)
        model[1].bias.fill_(-0.5)
        model[3].weight.copy_(torch.tensor([[2.0], [0.0]]))
    x, seed = torch.tensor([[0.45]]), torch.tensor([[1.0, 0]])
    for method in METHODS:
        certifier = ExplanationCertifier(model, x, Explanation())
        box = certifier.box(x, seed, ThreatModel.box("linf", 0.1), None, method)
        assert box.lower <= 0  # the unit is off
        assert box.upper >= 2  # and on
        off = certifier.box(
            x, torch.tensor([[1.0, 0]]), ThreatModel.box("linf", 0.01), None, method
        )
        assert abs(float(off.lower)) + abs(float(off.upper)) < 1e-5  # the unit is off


def test_halved_gamma() -> None:
    """The published code moves weights by gamma / 2: a one-layer net attains the whole of it."""
    model = nn.Linear(4, 3)
    x, seed = torch.rand(3, 4), torch.eye(3)
    for method in METHODS:
        certifier = ExplanationCertifier(model, x, Explanation())
        for relative in (True, False):
            box = certifier.box(x, seed, None, WeightBudget(0.1, relative), method)
            weight = model.weight.detach().double()
            reach = 0.1 * weight.abs() if relative else torch.full_like(weight, 0.1)
            for end, vertex in ((box.lower, weight - reach), (box.upper, weight + reach)):
                assert torch.allclose(end.double(), vertex, rtol=1e-5, atol=1e-5)
            assert bool((box.lower <= weight - reach).all())  # all of it, to the last bit
            assert bool((box.upper >= weight + reach).all())


def test_a_bias_of_zero_stays_in_a_relative_budget() -> None:
    """The published code moves biases by gamma / 2, absolutely, in either mode."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].bias.zero_()
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    x, seed = torch.tensor([[0.02, 0.5]]), torch.tensor([[1.0, 0]])
    weight = float(model[2].weight[0, 0])
    for method in METHODS:
        certifier = ExplanationCertifier(model, x, Explanation())
        kept = certifier.box(x, seed, None, WeightBudget(0.1), method)  # the first unit is on
        found = torch.stack([kept.lower[0, 0], kept.upper[0, 0]]) / weight
        assert 1.21 <= float(found.max()) < 1.2101
        assert 0.7899 < float(found.min()) <= 0.81  # Rump's product loses 0.02
        moved = certifier.box(x, seed, None, WeightBudget(0.1, relative=False), method)
        assert bool(moved.lower[0, 0] <= 0)  # an absolute budget turns it off
        assert bool(moved.upper[0, 0] >= 0)


def test_max_pool() -> None:
    """The published code unpools bounds at the indices of the middle, which is not valid."""
    image = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(1, 2))
    x, seed = torch.tensor([0.5, 0.48]).view(1, 1, 1, 2), torch.tensor([[1.0, 0]])
    slope = float(image[2].weight[0, 0])
    for method in METHODS:
        certifier = ExplanationCertifier(image, x, Explanation())
        box = certifier.box(
            x, torch.tensor([[1.0, 0]]), ThreatModel.box("linf", 0.05), None, method
        )
        for entry in range(2):  # either may be the largest
            low, high = box.lower.flatten()[entry], box.upper.flatten()[entry]
            assert low <= min(0, slope) + 1e-6
            assert high >= max(0, slope) - 1e-6
        apart = certifier.box(x, seed, ThreatModel.box("linf", 0.005), None, method)
        assert torch.allclose(apart.lower, torch.tensor([slope, 0.0]).view_as(x), atol=1e-5)


def test_methods_and_budgets_are_ordered() -> None:
    model, x, seed = net("relu"), samples(), torch.eye(CLASSES)
    certifier = ExplanationCertifier(model, x, Explanation())
    width = {}
    for method in METHODS:
        for eps in (0.0, 0.01, 0.1):
            box = certifier.box(x, seed, ThreatModel.box("linf", eps), None, method)
            width[method, eps] = (box.upper - box.lower).mean()
        assert width[method, 0.0] < width[method, 0.01] < width[method, 0.1]
    for eps in (0.01, 0.1):
        assert width["linear", eps] <= width["crown-interval", eps] <= width["interval", eps]
    assert width["linear", 0.1] < 0.8 * width["interval", 0.1]


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms(norm: str) -> None:
    model, x = net("relu"), samples()
    threat = ThreatModel.box(norm, 0.3)
    certifier = ExplanationCertifier(model, x, Explanation())
    for method in METHODS:
        box = certifier.box(x, torch.eye(CLASSES), threat, None, method)
        for _ in range(20):
            step = torch.randn_like(x).flatten(1)
            length = step.norm(2 if norm == "l2" else 1, dim=1, keepdim=True)
            point = (x + (0.3 * step / length).view_as(x)).clamp(0, 1)
            value = explain(model, point, TARGET)
            assert bool(((box.lower <= value) & (value <= box.upper)).all())


def test_training_boxes_are_those_without_rounding_and_have_gradients() -> None:
    model, x, seed = net("sigmoid, images"), samples(), torch.eye(CLASSES)
    budget, threat = WeightBudget(0.01), ThreatModel.box("linf", 0.05)
    low, high = threat.bounds(x)
    box = train_box(model, x, seed, Explanation(), low, high, budget)
    sound = ExplanationCertifier(model, x, Explanation()).box(x, seed, threat, budget, "interval")
    assert torch.allclose(box.lower, sound.lower, rtol=1e-3, atol=1e-5)
    check(model, Explanation(), 0.05, budget, "interval", box=sound)
    (box.upper - box.lower).mean().backward()
    for name, weight in model.named_parameters():
        if name != "6.bias":  # the gradient of a logit does not depend on its bias
            assert weight.grad is not None
            assert bool(weight.grad.isfinite().all())


def test_what_cannot_be_explained_is_turned_away() -> None:
    layers = nn.Sequential(nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, CLASSES)).eval()
    with pytest.raises(UnsupportedError, match="native_layer_norm_backward"):
        ExplanationCertifier(layers, samples(), Explanation())
    seeded = nn.Linear(4, CLASSES)
    seeded.register_buffer("seed", torch.zeros(1))
    with pytest.raises(CertifyError, match="named seed"):
        ExplanationCertifier(seeded, torch.rand(1, 4), Explanation())
    model = net("relu")
    with pytest.raises(ValueError, match="no method"):
        ExplanationCertifier(model, samples(), Explanation()).box(
            samples(), torch.eye(CLASSES), method="exact"
        )

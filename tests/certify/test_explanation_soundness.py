"""Boxes of explanations hold every point that was tried, on nets of all kinds, in both types."""

from __future__ import annotations

import copy
import statistics

import pytest
import torch
from explanation_checks import SETS, check_attained, samples
from explanation_nets import CLASSES, NETS, SHAPE, in_short, net

from attacks.explanations import Explanation, explain
from attacks.threat import ThreatModel, WeightBudget
from certify.errors import UnsupportedError
from certify.explaining import METHODS, ExplanationCertifier

SOME = ["relu", "elu with a jump", "gelu", "tanh, images", "max pooling", "residual"]
SEEDS = 6
"""Nets of each kind: each set of what may move is tried on two, one of either type."""


@pytest.mark.parametrize("what", SETS)
@pytest.mark.parametrize("name", SOME)
def test_some_points(name: str, what: str) -> None:
    torch.manual_seed(0)
    found = check_attained(net(name, 1), what, entries=1, restarts=8, steps=3)
    assert found.led >= found.points / 2
    assert max(found.shares["linear"]) > 0.02, "no point came anywhere near the bounds"


@pytest.mark.slow
def test_a_million_points(capsys: pytest.CaptureFixture[str]) -> None:
    """Hundreds of nets: even seeds in float32, odd ones in float64."""
    points = led = nets = 0
    shares: dict[tuple[str, str, str], list[float]] = {}
    for name in NETS:
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            model = net(name, seed).to(torch.float64 if seed % 2 else torch.float32)
            what = list(SETS)[seed % 3]
            found = check_attained(model, what, restarts=64)
            points, led, nets = points + found.points, led + found.led, nets + 1
            for method, values in found.shares.items():
                shares.setdefault((name, what, method), []).extend(values)
    with capsys.disabled():
        print(f"\n{points:,} points, {led:,} led by gradients, {nets} nets, 0 outside")
        print("median of attained / width, by " + ", ".join(METHODS))
        for what in SETS:
            for name in NETS:
                medians = [statistics.median(shares[name, what, m]) for m in METHODS]
                print(f"  {what:8} {name:26} " + " ".join(f"{m:.3f}" for m in medians))
    assert points >= 10**6
    assert led >= points / 2
    assert nets >= 200
    assert all(max(values) > 0 for values in shares.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", ["an input", "a weight"])
@pytest.mark.parametrize(
    "name", in_short(["relu", "sigmoid", "max pooling", "elu", "gelu, images"])
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_certified(
    name: str, bad: str, method: str, value: float
) -> None:
    """In an input or a weight: what is not finite has no box of finite ends, or the model none."""
    model, x = copy.deepcopy(net(name)), samples()
    certifier = ExplanationCertifier(model, x, Explanation())
    if bad == "a weight":
        with torch.no_grad():
            next(iter(model.parameters())).view(-1)[0] = value
        try:
            certifier = ExplanationCertifier(model, x, Explanation())
        except UnsupportedError:  # its values cannot be compared with those of its graph
            return
        clean = explain(model, x, torch.arange(3))
    else:
        x[0].view(-1)[0] = value
        clean = explain(model, x, torch.arange(3))
    for threat, budget in ((None, WeightBudget(0.01)), (ThreatModel.box("linf", 0.01), None)):
        if threat is not None and bad == "an input":
            continue  # the set of inputs is the legal box's
        box = certifier.box(x, torch.eye(CLASSES), threat, budget, method)  # type: ignore[arg-type]
        certain = box.lower.isfinite() & box.upper.isfinite()
        assert not bool((certain & ~clean.isfinite()).any())
        if bad == "an input":
            alone = certifier.box(samples(), torch.eye(CLASSES), threat, budget, method)  # type: ignore[arg-type]
            assert torch.allclose(box.lower[1:], alone.lower[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "leaky relu", "steep leaky relu"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_at_a_point_boxes_are_as_narrow_as_docs_explanations_says(
    name: str, kind: torch.dtype
) -> None:
    """4 A times the sum of gamma(terms + 16) over the layers, A the gradient of absolute values."""
    torch.manual_seed(0)
    model, x = net(name), torch.rand(64, *SHAPE)
    exact, h = copy.deepcopy(model).double(), x.double().flatten(1)
    slopes = []
    with torch.no_grad():
        for layer in exact[1:]:
            if not isinstance(layer, torch.nn.Linear):
                slopes.append(torch.func.vmap(torch.func.grad(lambda v, f=layer: f(v).sum()))(h))
            h = layer(h)
        layers = [layer for layer in exact if isinstance(layer, torch.nn.Linear)]
        size = torch.eye(CLASSES).double()[torch.arange(64) % CLASSES]
        for layer, slope in zip(reversed(layers), [*reversed(slopes), 1.0], strict=True):
            size = (size @ layer.weight.abs()) * slope
    unit = torch.finfo(kind).eps / 2
    terms = sum(layer.out_features + 16 for layer in layers)
    stated = 4 * size * terms * unit * (1 + 1e-4)
    value = explain(exact, x.double(), torch.arange(64) % CLASSES).flatten(1)
    certifier = ExplanationCertifier(model.to(kind), x.to(kind), Explanation())
    seed = torch.eye(CLASSES)[torch.arange(64) % CLASSES].to(kind)
    for method in METHODS:
        box = certifier.box(x.to(kind), seed, method=method)  # type: ignore[arg-type]
        low, high = box.lower.flatten(1), box.upper.flatten(1)
        assert bool(((low <= value) & (value <= high)).all())
        width = high.double() - low.double()
        assert bool((width <= stated).all()), float((width / stated).max())

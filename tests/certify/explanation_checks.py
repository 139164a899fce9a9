"""What boxes of explanations must hold: no point that can be attained lies outside."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from explanation_nets import CLASSES, SHAPE
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attacks.explanations import Explanation, attribute
from attacks.threat import ThreatModel, WeightBudget
from certify.explaining import METHODS, ExplanationCertifier
from certify.interval import Interval

SETS: dict[str, tuple[float | None, WeightBudget | None]] = {
    "inputs": (0.1, None),
    "weights": (None, WeightBudget(0.02)),
    "both": (0.05, WeightBudget(0.01, relative=False)),
}
"""What may move: eps and the budget of the weights."""
TARGET = torch.tensor([0, 1, 2])
Weights = dict[str, Tensor]


@dataclass
class Found:
    """How many points were tried, and how much of each method's width they reached."""

    points: int = 0
    led: int = 0
    shares: dict[str, list[float]] = field(default_factory=dict)


class Smooth(TorchFunctionMode):
    """Activations with jumps in their slopes, rounded off: their explanations have gradients."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _SMOOTH.get(func, func)(*args, **(kwargs or {}))


def _soft(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return F.softplus(x, 10.0)


def _soft_leaky(x: Tensor, negative_slope: float, **_: Any) -> Tensor:
    return negative_slope * x + (1 - negative_slope) * F.softplus(x, 10.0)


def _soft_hardtanh(x: Tensor, min_val: float, max_val: float, **_: Any) -> Tensor:
    return min_val + F.softplus(x - min_val, 10.0) - F.softplus(x - max_val, 10.0)


_SMOOTH: dict[Any, Any] = {
    F.relu: _soft,
    torch.relu: _soft,
    F.leaky_relu: _soft_leaky,
    F.hardtanh: _soft_hardtanh,
    F.relu6: lambda x, *_, **__: _soft_hardtanh(x, 0.0, 6.0),
    torch.abs: lambda x: (x * x + 0.01).sqrt(),
}


def samples(kind: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(seed)).to(kind)


def boxes(model: nn.Module, x: Tensor, what: str, explanation: Explanation) -> dict[str, Interval]:
    """The box of each method."""
    eps, budget = SETS[what]
    threat = None if eps is None else ThreatModel.box("linf", eps)
    certifier = ExplanationCertifier(model, x, explanation)
    seed = torch.eye(CLASSES).to(x)[TARGET]
    return {method: certifier.box(x, seed, threat, budget, method) for method in METHODS}  # type: ignore[arg-type]


def check_attained(
    model: nn.Module,
    what: str,
    explanation: Explanation | None = None,
    entries: int = 2,
    restarts: int = 16,
    steps: int = 4,
) -> Found:
    """No random point, and none led to either end of an entry, is out of any method's box."""
    explanation = explanation or Explanation()
    kind = next(iter(model.parameters())).dtype
    x = samples(kind)
    found_boxes = boxes(model, x, what, explanation)
    for method, box in found_boxes.items():
        assert bool((box.lower <= box.upper).all()), f"{method}: NaN, or ends swapped"
    found, exact = Found(), copy.deepcopy(model).double()
    threat = ThreatModel.box("linf", SETS[what][0] or 0.0)
    for i in range(len(x)):
        held = {m: (b.lower[i].flatten(), b.upper[i].flatten()) for m, b in found_boxes.items()}
        wide = (held["interval"][1] - held["interval"][0]).argsort(descending=True)
        for entry in wide[torch.randperm(len(wide) // 2)[:entries]].tolist():
            reached = []
            for sign in (1.0, -1.0):
                led = 0
                for weights, points in _led(
                    model, x[i], i, entry, sign, threat, what, restarts, steps, explanation
                ):
                    led += len(points)
                    if SETS[what][0] is not None:
                        points = torch.cat([points, _random(points[0], x[i], threat, restarts)])
                    found.points += len(points)
                    for net, precise in ((model, weights), (exact, _double(weights))):
                        at = points.to(torch.float64 if net is exact else kind)
                        value = _explained(net, precise, at, i, explanation).detach().flatten(1)
                        reached.append(value[:, entry].double())
                        for method, (low, high) in held.items():
                            out = torch.maximum(low - value, value - high).max()
                            assert not out > 0, f"{method}, {what}: {out:.3g} outside"
                found.led += led
            span = torch.cat(reached)
            for method, (low, high) in held.items():
                width = float(high[entry] - low[entry])
                if width > 0:
                    share = float(span.max() - span.min()) / width
                    found.shares.setdefault(method, []).append(share)
    return found


def _double(weights: Weights) -> Weights:
    return {name: weight.double() for name, weight in weights.items()}


def _explained(
    model: nn.Module, weights: Weights, points: Tensor, i: int, explanation: Explanation
) -> Tensor:
    seed = torch.eye(CLASSES).to(points)[TARGET[i]].expand(len(points), -1)
    own = {name: value.to(points) for name, value in explanation.tensors.items()}
    return attribute(
        explanation, lambda at: functional_call(model, weights, (at,)), points, seed, own
    )


def _random(like: Tensor, x: Tensor, threat: ThreatModel, count: int) -> Tensor:
    low, high = _ends(x, threat)
    u = torch.rand(count, *like.shape, dtype=like.dtype)
    u[::2] = u[::2].round()
    return (low + u * (high - low)).clamp(low, high)


def _ends(x: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    low, high = threat.bounds(x.float())
    if x.dtype == torch.float64:  # of samples that are float32 numbers
        return low.double(), high.double()
    return low, high


def _led(
    model: nn.Module,
    x: Tensor,
    i: int,
    entry: int,
    sign: float,
    threat: ThreatModel,
    what: str,
    restarts: int,
    steps: int,
    explanation: Explanation,
) -> Iterator[tuple[Weights, Tensor]]:
    """Weights and inputs on the way of PGD to one end of an entry, by the smooth stand-in."""
    eps, budget = SETS[what]
    low, high = _ends(x, threat)
    points = x[None] if eps is None else _random(x, x, threat, restarts)
    weights = {name: w.detach().clone() for name, w in model.named_parameters()}
    limits = {} if budget is None else {name: budget.bounds(w) for name, w in weights.items()}
    for name, (least, most) in limits.items():
        corner = torch.rand_like(least).round()
        weights[name] = (least + corner * (most - least)).clamp(least, most)
    for step in range(steps):
        points.requires_grad_(True)
        moving = {name: weights[name].requires_grad_(True) for name in limits}
        with Smooth():
            value = _explained(model, weights, points, i, explanation).flatten(1)[:, entry]
        wanted = [points, *moving.values()] if eps is not None else list(moving.values())
        slopes = torch.autograd.grad(value.sum() * sign, wanted, allow_unused=True)
        points = points.detach()
        size = 1.0 if step == 0 else 0.4 if step < steps - 1 else 0.1
        if eps is not None:
            slope, *slopes = slopes  # type: ignore[assignment]
            if slope is not None:
                points = points + size * (high - low) * slope.nan_to_num().sign()
                points = points.clamp(low, high)
        for (name, weight), slope in zip(moving.items(), slopes, strict=True):
            least, most = limits[name]
            weights[name] = weight.detach()
            if slope is not None:
                moved = weights[name] + size * (most - least) * slope.nan_to_num().sign()
                weights[name] = moved.clamp(least, most)
        yield weights, points

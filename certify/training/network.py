"""The network as a program of its present weights, and the bounds that training reads off it."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.modes import evaluating
from attacks.threat import ThreatModel
from certify.bind import bind
from certify.graph import Graph
from certify.interval import Interval, as_interval
from certify.maps import affine
from certify.program import Program
from certify.propagate import Value, propagate
from certify.trace import trace_model

_GRAPHS: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Graph]] = WeakKeyDictionary()
"""What was traced already: graphs hold no weights, so training does not outdate them."""


def program(model: nn.Module, x: Tensor) -> Program:
    """Return the network in eval mode as a program of its present weights, differentiable in them.

    It is bound anew for each step, and so may keep what it derives from the weights. Where a model
    in training mode has batch norm, a clean pass first moves its running statistics: bounds are of
    the network as it will be used, and would never move them.

    Raises:
        UnsupportedError: The model cannot be traced.
    """
    if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
        with torch.no_grad():
            model(x)
    graphs = _GRAPHS.setdefault(model, {})
    key = (tuple(x.shape[1:]), x.dtype, x.device)
    if key not in graphs:
        with evaluating(model):
            graphs[key] = trace_model(model, x[:2].detach())
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return bind(graphs[key], values, rounded=False)


def box(x: Tensor, eps: float, lower: Tensor, upper: Tensor) -> Interval:
    """The Linf ball of radius eps around each sample, inside the input box."""
    return Interval(*ThreatModel("linf", eps, lower, upper).bounds(x))


def intervals(network: Program, inputs: Interval) -> dict[int, Value]:
    """Interval bounds of all nodes, without allowance for rounding: for training alone."""
    return propagate(network, {"x": inputs}, rounded=False)


def rivalry(classes: int, like: Tensor) -> Tensor:
    """Coefficients of `z_k - z_y`: (y, k, classes), zero at k = y."""
    unit = torch.eye(classes, dtype=like.dtype, device=like.device)
    return unit[None] - unit[:, None]


def rivals(network: Program, values: Mapping[int, Value], y: Tensor) -> Interval:
    """Bound by how much each class beats the true one.

    The difference is taken of the last layer's weights, not of its bounds ("elision of the last
    layer", Gowal et al. 2018, section 3), where that layer is linear.

    Args:
        network: The program.
        values: Bounds of its nodes.
        y: True classes, int64, (n,).

    Returns:
        Bounds of `z_k - z_y`, (n, classes); exactly 0 at k = y.
    """
    output = network.graph.nodes[network.output]
    logits = as_interval(values[network.output])
    parts = affine(network, output)
    if parts is None or len(parts) != 1:
        return _apart(logits, y)
    source, last = parts[0]
    classes = logits.shape[1]
    rows = rivalry(classes, logits.lower).flatten(0, 1)
    before = as_interval(values[source])
    offset = (rows * last.apply(torch.zeros_like(before.lower[:1]))).sum(1)
    weight = last.adjoint(rows).reshape(classes, classes, -1)[y]
    middle = torch.einsum("nkm,nm->nk", weight, before.center.flatten(1))
    middle = middle + offset.view(classes, classes)[y]
    spread = torch.einsum("nkm,nm->nk", weight.abs(), before.radius.flatten(1))
    return Interval(middle - spread, middle + spread)


def _apart(logits: Interval, y: Tensor) -> Interval:
    """Differences of bounds, for a last layer that is not linear."""
    rival = torch.ones_like(logits.lower).scatter(1, y[:, None], 0.0)
    lower = logits.lower - logits.upper.gather(1, y[:, None])
    upper = logits.upper - logits.lower.gather(1, y[:, None])
    return Interval(lower * rival, upper * rival)


def verified(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, lower: Tensor, upper: Tensor
) -> Tensor:
    """Which samples interval bounds show robust, bool (n,): to watch training, not to report."""
    with torch.no_grad():
        network = program(model, x)
        worst = rivals(network, intervals(network, box(x, eps, lower, upper)), y).upper
    return (worst.scatter(1, y[:, None], -torch.inf) < 0).all(1)

"""The network as a program of its present weights, and the bounds that training reads off it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    It is bound anew for each step, and so may keep what it derives from the weights. Batch norm in
    training mode is taken with the statistics of this batch, clean, which gradients pass through
    (as Shi et al., NeurIPS 2021, do): running ones lag behind the weights, and a network that
    learns under them is another one than the network that is used in the end.

    Raises:
        UnsupportedError: The model cannot be traced.
    """
    graphs = _GRAPHS.setdefault(model, {})
    key = (tuple(x.shape[1:]), x.dtype, x.device)
    if key not in graphs:
        with evaluating(model):
            graphs[key] = trace_model(model, x[:2].detach())
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values |= _batch_statistics(model, x)
    return bind(graphs[key], values, rounded=False)


def _batch_statistics(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Mean and variance of what batch norm layers in training mode get, by their buffers' names.

    The clean pass that it takes moves the running statistics, once.
    """
    found: dict[str, Tensor] = {}

    def measure(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].transpose(0, 1).flatten(1)
            found[f"{name}.running_mean"] = rows.mean(1)
            found[f"{name}.running_var"] = rows.var(1, correction=0)

        return hook

    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    }
    hooks = [layer.register_forward_pre_hook(measure(name)) for name, layer in layers.items()]
    try:
        if layers:
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


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

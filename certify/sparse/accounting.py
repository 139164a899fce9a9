"""How sparse a network is, and what it costs: counted on the network itself, never nominal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks.modes import evaluating
from certify.sparse.layers import LAYERS, Layer


@dataclass(frozen=True)
class LayerCount:
    """One linear or convolution layer.

    Attributes:
        name: Path of the layer in the network.
        shape: Shape of its weight.
        weights: Entries of its weight; 0 where it shares the weight of an earlier layer.
        nonzero_weights: Those that are not 0.
        macs: Multiply-adds of one sample: each weight once for every position of the output.
        nonzero_macs: The same for the weights that are not 0.
        constant_outputs: Neurons or channels without a weight that comes in.
        unused_inputs: Inputs (of a group) that no weight reads.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    nonzero_weights: int
    macs: int
    nonzero_macs: int
    constant_outputs: int
    unused_inputs: int

    @property
    def sparsity(self) -> float | None:
        """Share of zeros among its weights; None where it has none of its own."""
        return _share_of_zeros(self.weights, self.nonzero_weights)


@dataclass(frozen=True)
class Counts:
    """A whole network.

    Attributes:
        layers: Its linear and convolution layers, in its own order. What it computes in other
            ways (a functional call, an exported program) is not among them.
        parameters: All parameters: weights, biases, normalisation.
        nonzero_parameters: Those that are not 0.
        bytes: Bytes of parameters and buffers, written densely in their own types.
    """

    layers: tuple[LayerCount, ...]
    parameters: int
    nonzero_parameters: int
    bytes: int

    @property
    def weights(self) -> int:
        """Weights of the linear and convolution layers: those that can be pruned."""
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzero_weights(self) -> int:
        """Weights of the layers that are not 0."""
        return sum(layer.nonzero_weights for layer in self.layers)

    @property
    def sparsity(self) -> float | None:
        """Share of zeros among the weights of the layers; None without such a layer."""
        return _share_of_zeros(self.weights, self.nonzero_weights)

    @property
    def macs(self) -> int:
        """Multiply-adds of one sample in the layers; FLOPs are twice as many."""
        return sum(layer.macs for layer in self.layers)

    @property
    def nonzero_macs(self) -> int:
        """Multiply-adds of one sample with the weights that are not 0."""
        return sum(layer.nonzero_macs for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values, totals and shares included."""
        layers = [asdict(layer) | {"sparsity": layer.sparsity} for layer in self.layers]
        totals = ("weights", "nonzero_weights", "sparsity", "macs", "nonzero_macs")
        own = ("parameters", "nonzero_parameters", "bytes")
        return {name: getattr(self, name) for name in (*totals, *own)} | {"layers": layers}


def count(model: nn.Module, x: Tensor) -> Counts:
    """Count a network's weights, and its work by running one sample.

    Args:
        model: Any classifier; it is run in eval mode and left in its own.
        x: Samples (n, *shape), n >= 1, to run if there are layers; work is counted for one.
    """
    layers = {name: part for name, part in model.named_modules() if isinstance(part, LAYERS)}
    with evaluating(model), torch.no_grad(), _positions(layers) as positions:
        if layers:
            model(x)
    weights = {name: layer.weight for name, layer in layers.items()}
    first = {id(weight): name for name, weight in reversed(weights.items())}
    counted = [
        _counted(name, weight.detach(), positions[name] // len(x), first[id(weight)] == name)
        for name, weight in weights.items()
    ]
    parameters = list(model.parameters())
    return Counts(
        tuple(counted),
        sum(p.numel() for p in parameters),
        sum(_nonzero(p) for p in parameters),
        sum(t.numel() * t.element_size() for t in (*parameters, *model.buffers())),
    )


@contextmanager
def _positions(layers: Mapping[str, Layer]) -> Iterator[dict[str, int]]:
    """While it holds, count the positions at which each layer's weight is used."""
    found = dict.fromkeys(layers, 0)

    def watch(name: str, layer: Layer) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            found[name] += output.numel() // layer.weight.shape[0]

        return layer.register_forward_hook(hook)

    handles = [watch(name, layer) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _counted(name: str, weight: Tensor, positions: int, own: bool) -> LayerCount:
    nonzero = _nonzero(weight)
    there = (weight != 0).view(torch.uint8)  # far faster to reduce than bool
    flat = there.flatten(2).amax(2) if there.dim() > 2 else there
    return LayerCount(
        name,
        tuple(weight.shape),
        weight.numel() if own else 0,
        nonzero if own else 0,
        weight.numel() * positions,
        nonzero * positions,
        int((flat.amax(1) == 0).sum()),
        int((flat.amax(0) == 0).sum()),
    )


def _nonzero(values: Tensor) -> int:
    return int(values.detach().count_nonzero())


def _share_of_zeros(weights: int, nonzero: int) -> float | None:
    return (weights - nonzero) / weights if weights else None

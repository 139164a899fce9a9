"""Which weights of a network can be pruned, and in which units."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

Structure = Literal["weights", "channels"]
"""What is kept or pruned as one: a weight, or a convolution's filter / a linear layer's input."""

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
"""Layers whose weight can be pruned."""

LAYERS = get_args(Layer)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of the linear and convolution layers by name, in the network's order.

    Biases and normalisation are not counted as prunable, here and in every sparsity that is
    reported. A weight that two layers share counts once, under its first name.
    """
    owners = {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    }
    return {name: value for name, value in model.named_parameters() if name in owners}


def unit_axes(model: nn.Module, structure: Structure) -> dict[str, int | None]:
    """Return the axis of each prunable weight whose slices are its units; None: single weights.

    Channels are the filters of convolutions (axis 0) and the inputs of linear layers (axis 1), as
    in SparseVLR's structured form: an input that is pruned is a neuron before it that is dead.
    """
    if structure == "weights":
        return dict.fromkeys(prunable(model))
    filters = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, _CONVOLUTIONS)}
    return {name: 0 if name in filters else 1 for name in prunable(model)}


def empty_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the prunable weights all of whose entries are 0: what follows them is constant."""
    return tuple(name for name, weight in prunable(model).items() if not weight.any())

"""Which weights of a network can be pruned."""

from __future__ import annotations

from typing import get_args

from torch import nn

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
"""Layers whose weight can be pruned."""
LAYERS = get_args(Layer)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of the linear and convolution layers by name, in the network's order.

    Biases and normalisation are not counted as prunable, here and in every sparsity that is
    reported. A weight that two layers share counts once, under its first name.

    Raises:
        ValueError: There are none.
    """
    owners = {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    }
    weights = {name: value for name, value in model.named_parameters() if name in owners}
    if not weights:
        raise ValueError("the model has no linear or convolution layer to prune")
    return weights

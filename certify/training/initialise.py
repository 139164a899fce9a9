"""Weights that keep interval bounds from growing with depth (Shi et al., NeurIPS 2021)."""

from __future__ import annotations

import math

import torch
from torch import nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def ibp_initialisation(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of linear and convolution layers from N(0, 2 pi / n^2), biases 0.

    n is the number of inputs of a neuron (section 4.1): the expected width of an interval then
    stays as it is from one layer to the next, where usual initialisations multiply it by sqrt(n).

    Args:
        model: Changed in place.
        generator: Draws the weights, on their device.
    """
    for module in model.modules():
        if isinstance(module, _LAYERS):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, math.sqrt(2 * math.pi) / fan_in, generator=generator)
            if module.bias is not None:
                module.bias.zero_()

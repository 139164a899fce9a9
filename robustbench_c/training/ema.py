"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attacks.modes import evaluating


class Ema:
    """Keeps `average = decay * average + (1 - decay) * weights`; buffers are copied as they are.

    Those of batch norm are then statistics of another network, whose weights may be far from their
    average: `calibrate` measures them anew before the average is used.

    Attributes:
        module: The averaged model, a copy that starts at the model's weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one optimiser step."""
        for average, weight in zip(self.module.parameters(), model.parameters(), strict=True):
            average.lerp_(weight, 1 - self.decay)
        for kept, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the statistics of batch norm to those of the averaged network, all else in eval mode.

        As for averages of weights in Izmailov et al. 2018 (UAI), algorithm 1.

        Args:
            batches: Training samples, (n, *shape) each, of nearly equal size.
        """
        layers = [m for m in self.module.modules() if isinstance(m, _BatchNorm)]
        momenta = [layer.momentum for layer in layers]
        if not layers:
            return
        with evaluating(self.module):
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # the mean over all batches, each weighing the same
                layer.train()
            for batch in batches:
                self.module(batch)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

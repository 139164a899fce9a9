"""Tensors beside the weights that a method learns, with an optimiser of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Learned:
    """One tensor for each prunable weight, moved by Adam.

    Attributes:
        values: The tensors by the weight's name.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """Start at the given values, which are copied."""
        self.values = {name: nn.Parameter(value.detach().clone()) for name, value in values.items()}
        self._adam = torch.optim.Adam(self.values.values())

    def step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        """Take one step of Adam at a learning rate."""
        for name, gradient in gradients.items():
            self.values[name].grad = gradient
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()

    def state(self) -> dict[str, Any]:
        """All that a resume needs."""
        return {
            "values": {name: value.detach().clone() for name, value in self.values.items()},
            "adam": copy.deepcopy(self._adam.state_dict()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(state["values"][name])
        self._adam.load_state_dict(state["adam"])

"""Fully connected networks of any widths."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from robustbench_c.zoo.nets.base import Architecture, Width

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}


class Mlp(Architecture):
    """Flatten, then linear layers with an activation between them."""

    name: ClassVar[str] = "mlp"

    widths: Annotated[tuple[Width, ...], Field(max_length=64)] = (256, 256)
    """Neurons of each hidden layer; empty for a linear classifier."""
    activation: Literal["relu", "softplus", "tanh", "sigmoid", "gelu"] = "relu"
    """Between the layers."""

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network; samples may have any shape."""
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, width in pairwise((math.prod(input_shape), *self.widths)):
            layers += [nn.Linear(fan_in, width), _ACTIVATIONS[self.activation]()]
        last = self.widths[-1] if self.widths else math.prod(input_shape)
        return nn.Sequential(*layers, nn.Linear(last, n_classes))

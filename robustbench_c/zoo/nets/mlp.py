"""Fully connected networks of any widths."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from robustbench_c.zoo.nets.activations import Activation, Beta, activate
from robustbench_c.zoo.nets.base import Architecture, Width


class Mlp(Architecture):
    """Flatten, then linear layers with an activation between them."""

    name: ClassVar[str] = "mlp"
    later: ClassVar[frozenset[str]] = frozenset({"beta"})

    widths: Annotated[tuple[Width, ...], Field(max_length=64)] = (256, 256)
    """Neurons of each hidden layer; empty for a linear classifier."""
    activation: Activation = "relu"
    """Between the layers."""
    beta: Beta = 1.0
    """Sharpness of softplus; it has no meaning for the others."""

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network; samples may have any shape."""
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, width in pairwise((math.prod(input_shape), *self.widths)):
            layers += [nn.Linear(fan_in, width), activate(self.activation, self.beta)]
        last = self.widths[-1] if self.widths else math.prod(input_shape)
        return nn.Sequential(*layers, nn.Linear(last, n_classes))

    def resized(self, widths: tuple[int, ...]) -> Architecture:
        """Return the same family with other widths."""
        return self.model_copy(update={"widths": widths})

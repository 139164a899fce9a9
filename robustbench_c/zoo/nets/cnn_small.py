"""The small CNN of provable defences (Wong and Kolter, ICML 2018, MNIST and Fashion-MNIST)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from robustbench_c.zoo.nets.activations import Activation, Beta, activate
from robustbench_c.zoo.nets.base import Architecture, Width, image_shape


class CnnSmall(Architecture):
    """conv16 4x4/2, conv32 4x4/2, fc100, fc, with ReLU (or another activation).

    The layers sit at the positions, and so have the key names (0, 2, 5, 7), of the models
    published with the paper (locuslab/convex_adversarial), which load as they are.
    """

    name: ClassVar[str] = "cnn-small"
    later: ClassVar[frozenset[str]] = frozenset({"activation", "beta", "channels", "hidden"})

    activation: Activation = "relu"
    """Between the layers."""
    beta: Beta = 1.0
    """Sharpness of softplus; it has no meaning for the others."""
    channels: tuple[Width, Width] = (16, 32)
    """Channels of the two convolutions."""
    hidden: Width = 100
    """Neurons between the two linear layers."""

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network for images of at least 4x4."""
        channels, height, width = image_shape(input_shape, smallest=4)
        first, second = self.channels
        return nn.Sequential(
            nn.Conv2d(channels, first, 4, stride=2, padding=1),
            activate(self.activation, self.beta),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            activate(self.activation, self.beta),
            nn.Flatten(),
            nn.Linear(second * (height // 4) * (width // 4), self.hidden),
            activate(self.activation, self.beta),
            nn.Linear(self.hidden, n_classes),
        )

    def resized(self, widths: tuple[int, ...]) -> Architecture:
        """Return the same family with other widths."""
        return self.model_copy(update={"channels": widths[:2], "hidden": widths[2]})

"""The small CNN of provable defences (Wong and Kolter, ICML 2018, MNIST and Fashion-MNIST)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from robustbench_c.zoo.nets.activations import Activation, Beta, activate
from robustbench_c.zoo.nets.base import Architecture, image_shape


class CnnSmall(Architecture):
    """conv16 4x4/2, conv32 4x4/2, fc100, fc, with ReLU (or another activation).

    The layers sit at the positions, and so have the key names (0, 2, 5, 7), of the models
    published with the paper (locuslab/convex_adversarial), which load as they are.
    """

    name: ClassVar[str] = "cnn-small"
    later: ClassVar[frozenset[str]] = frozenset({"activation", "beta"})

    activation: Activation = "relu"
    """Between the layers."""
    beta: Beta = 1.0
    """Sharpness of softplus; it has no meaning for the others."""

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network for images of at least 4x4."""
        channels, height, width = image_shape(input_shape, smallest=4)
        return nn.Sequential(
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            activate(self.activation, self.beta),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            activate(self.activation, self.beta),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 100),
            activate(self.activation, self.beta),
            nn.Linear(100, n_classes),
        )

"""The small CNN of provable defences (Wong and Kolter, ICML 2018, MNIST and Fashion-MNIST)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from robustbench_c.zoo.nets.base import Architecture, image_shape


class CnnSmall(Architecture):
    """conv16 4x4/2, conv32 4x4/2, fc100, fc, with ReLU.

    The layers sit at the positions, and so have the key names (0, 2, 5, 7), of the models
    published with the paper (locuslab/convex_adversarial), which load as they are.
    """

    name: ClassVar[str] = "cnn-small"

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network for images of at least 4x4."""
        channels, height, width = image_shape(input_shape, smallest=4)
        return nn.Sequential(
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 100),
            nn.ReLU(),
            nn.Linear(100, n_classes),
        )

"""CNN7, the network of the certified training literature."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from robustbench_c.zoo.nets.base import Architecture, Width, image_shape


class Cnn7(Architecture):
    """Five 3x3 convolutions (the third with stride 2), fc512, fc; batch norm after all but fc.

    As in Shi et al., "Fast certified robust training with short warmup" (NeurIPS 2021), and the
    papers after it; the layers sit at the positions of that code's `cnn_7layer_bn`.
    """

    name: ClassVar[str] = "cnn7"
    later: ClassVar[frozenset[str]] = frozenset({"widths"})

    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first two convolutions; the other three have twice as many. 16 is narrow."""

    widths: tuple[Width, Width, Width, Width, Width, Width] | None = None
    """Channels of each convolution and neurons of fc512, where they are not as `width` says."""

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network for images of any size."""
        channels, height, width = image_shape(input_shape, smallest=1)
        *convolutions, hidden = self.widths or self._usual()
        layers: list[nn.Module] = []
        for place, (fan_in, fan_out) in enumerate(pairwise((channels, *convolutions))):
            conv = nn.Conv2d(fan_in, fan_out, 3, stride=2 if place == 2 else 1, padding=1)
            layers += [conv, nn.BatchNorm2d(fan_out), nn.ReLU()]
        features = convolutions[-1] * ((height + 1) // 2) * ((width + 1) // 2)
        layers += [nn.Flatten(), nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(hidden, n_classes))

    def resized(self, widths: tuple[int, ...]) -> Architecture:
        """Return the same family with other widths."""
        return self.model_copy(update={"widths": None if widths == self._usual() else widths})

    def _usual(self) -> tuple[int, ...]:
        return (self.width, self.width, *(2 * self.width,) * 3, 512)

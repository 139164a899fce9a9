"""CNN7, the network of the certified training literature."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from robustbench_c.zoo.nets.base import Architecture, image_shape


class Cnn7(Architecture):
    """Five 3x3 convolutions (the third with stride 2), fc512, fc; batch norm after all but fc.

    As in Shi et al., "Fast certified robust training with short warmup" (NeurIPS 2021), and the
    papers after it; the layers sit at the positions of that code's `cnn_7layer_bn`.
    """

    name: ClassVar[str] = "cnn7"

    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first two convolutions; the other three have twice as many. 16 is narrow."""

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network for images of any size."""
        channels, height, width = image_shape(input_shape, smallest=1)
        w = self.width
        layers: list[nn.Module] = []
        plan = ((channels, w, 1), (w, w, 1), (w, 2 * w, 2), (2 * w, 2 * w, 1), (2 * w, 2 * w, 1))
        for fan_in, fan_out, stride in plan:
            conv = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1)
            layers += [conv, nn.BatchNorm2d(fan_out), nn.ReLU()]
        features = 2 * w * ((height + 1) // 2) * ((width + 1) // 2)
        layers += [nn.Flatten(), nn.Linear(features, 512), nn.BatchNorm1d(512), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(512, n_classes))

"""Residual networks for small images (He et al., CVPR 2016, section 4.2)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_c.zoo.nets.base import Architecture, image_shape


class _Block(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False), nn.BatchNorm2d(fan_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class _ResNet(nn.Module):
    def __init__(self, channels: int, n_classes: int, width: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1, blocks)
        self.layer2 = _stage(width, 2 * width, 2, blocks)
        self.layer3 = _stage(2 * width, 4 * width, 2, blocks)
        self.linear = nn.Linear(4 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(fan_in: int, fan_out: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (_Block(fan_out, fan_out, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Block(fan_in, fan_out, stride), *rest)


class ResNet(Architecture):
    """Three stages of basic blocks with batch norm, then the mean over the image, then fc.

    Where the width changes, the shortcut is a 1x1 convolution with batch norm (option B).
    """

    name: ClassVar[str] = "resnet"

    depth: Literal[8, 14, 20, 26, 32, 44, 56, 110] = 8
    """Layers, 6n + 2 for n blocks a stage."""
    width: Annotated[int, Field(ge=1, le=1024)] = 16
    """Channels of the first stage; the second and third have twice and four times as many."""

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network for images of any size."""
        channels, _, _ = image_shape(input_shape, smallest=1)
        return _ResNet(channels, n_classes, self.width, (self.depth - 2) // 6)

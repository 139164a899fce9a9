"""Pre-activation ResNet-18 (He et al., ECCV 2016), as adversarial training uses it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from robustbench_c.zoo.nets.base import Architecture, image_shape


class _PreActBlock(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(fan_in)
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out)))) + skip
        return out


class _PreActResNet18(nn.Module):
    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 2)
        self.layer4 = _stage(256, 512, 2)
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.conv1(x)))
        x = F.relu(self.bn(self.layer4(self.layer3(x))))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(fan_in: int, fan_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_PreActBlock(fan_in, fan_out, stride), _PreActBlock(fan_out, fan_out, 1))


class PreActResNet18(Architecture):
    """Four stages of two pre-activation blocks, 64 to 512 channels, 11 million parameters.

    The key names are those of the code of Rice et al., "Overfitting in adversarially robust deep
    learning" (ICML 2020): a final batch norm `bn` before the mean over the image.
    """

    name: ClassVar[str] = "preact-resnet18"

    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network for images of any size."""
        channels, _, _ = image_shape(input_shape, smallest=1)
        return _PreActResNet18(channels, n_classes)

"""Small classifiers that between them use every operation that gradients are bounded through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from bound_nets import Fn
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE, CLASSES = (1, 4, 4), 3
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky relu": lambda: nn.LeakyReLU(0.1),
    "steep leaky relu": lambda: nn.LeakyReLU(1.5),
    "softplus": nn.Softplus,
    "sharp softplus": lambda: nn.Softplus(5.0),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "elu with a jump": lambda: nn.ELU(0.5),
    "selu": nn.SELU,
    "celu": lambda: nn.CELU(2.0),
    "relu6": nn.ReLU6,
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.4),
    "absolute value": lambda: Fn(torch.abs),
}


def _dense(act: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 10), act(), nn.Linear(10, 8), act(), nn.Linear(8, CLASSES)
    )


def _images(act: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        act(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        act(),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def _pooled(pool: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        pool,
        nn.Flatten(),
        nn.Linear(features, 6),
        nn.ReLU(),
        nn.Linear(6, CLASSES),
    )


def _residual(x: Tensor, first: nn.Module, second: nn.Module, last: nn.Module) -> Tensor:
    h = F.relu(first(x))
    return last((h + F.relu(second(h))).flatten(1))


def _averaged(x: Tensor, first: nn.Module, second: nn.Module, last: nn.Module) -> Tensor:
    h = F.relu(first(x))
    return last(F.relu(h + second(second(h))).mean((2, 3)))


def _cut(x: Tensor, first: nn.Module, last: nn.Module) -> Tensor:
    rows = torch.cat([x[:, :, :3, 1:], x[:, :, 1:, :3] * 2], 1)
    return last(torch.tanh(first(rows)).flatten(1)) + x[:, 0, 2, 1:]


def _enlarged(x: Tensor, first: nn.Module, last: nn.Module) -> Tensor:
    return last(F.relu(first(F.interpolate(x, scale_factor=2))).flatten(1))


def _line(x: Tensor, first: nn.Module, last: nn.Module) -> Tensor:
    return last(F.relu(first(F.interpolate(x.flatten(2), scale_factor=2))).flatten(1))


NETS: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda act=act: _dense(act) for name, act in ACTIVATIONS.items()},
    **{f"{name}, images": lambda act=act: _images(act) for name, act in ACTIVATIONS.items()},
    "max pooling": lambda: _pooled(nn.MaxPool2d(2), 12),
    "max pooling, overlapping": lambda: _pooled(nn.MaxPool2d(3, 1, 1), 48),
    "max pooling, padded": lambda: _pooled(nn.MaxPool2d(2, 2, 1), 27),
    "max pooling, cut off": lambda: _pooled(nn.MaxPool2d(3, 2, ceil_mode=True), 12),
    "average pooling": lambda: _pooled(nn.AvgPool2d(2), 12),
    "average pooling, padded": lambda: _pooled(nn.AvgPool2d(3, 2, 1, count_include_pad=False), 12),
    "adaptive pooling": lambda: _pooled(nn.AdaptiveAvgPool2d(2), 12),
    "residual": lambda: Fn(
        _residual, nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(48, 3)
    ),
    "residual, a layer twice, mean": lambda: Fn(
        _averaged, nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)
    ),
    "strided, odd sizes": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(4, CLASSES)
    ),
    "grouped and dilated": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 2, dilation=2),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(4, CLASSES),
    ),
    "transposed": lambda: nn.Sequential(
        nn.ConvTranspose2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(98, CLASSES)
    ),
    "cut and joined": lambda: Fn(_cut, nn.Conv2d(2, 2, 2), nn.Linear(8, CLASSES)),
    "enlarged": lambda: Fn(_enlarged, nn.Conv2d(1, 2, 3, 2), nn.Linear(18, CLASSES)),
    "enlarged line": lambda: Fn(_line, nn.Conv1d(1, 2, 3, 2), nn.Linear(30, CLASSES)),
}


def net(name: str, seed: int = 0) -> nn.Module:
    """One of them, with weights of its own and batch norm as training leaves it."""
    torch.manual_seed(seed)
    model = NETS[name]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.3, 2)
                module.weight.normal_()
                module.bias.normal_()
    return model.eval()


def in_short(names: Iterable[str], offset: int = 0) -> list[Any]:
    """Parameters of a test: every other name, the others where slow tests run."""
    return [
        name if (i + offset) % 2 == 0 else pytest.param(name, marks=pytest.mark.slow)
        for i, name in enumerate(names)
    ]

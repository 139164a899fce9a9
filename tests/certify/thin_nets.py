"""Small networks with few weights: dead and constant neurons among them, in several forms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from bound_nets import Case
from torch import Tensor, nn

SHAPE = (2, 6, 6)


class Residual(nn.Module):
    """x + f(x): what is around the sum stays as it is."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _norm(kind: type[nn.Module], width: int) -> nn.Module:
    norm = kind(width)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 2)
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


def _conv(of: int, into: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(of, into, 3, stride=stride, padding=1)


def _flat(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.Flatten(), nn.Linear(width, 30)


FORMS: dict[str, Callable[[], list[nn.Module]]] = {
    "mlp": lambda: [nn.Flatten(), nn.Linear(72, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU()],
    "conv": lambda: [_conv(2, 6, 2), nn.ReLU(), _conv(6, 8, 2), nn.ReLU(), nn.Flatten()],
    "batch norm": lambda: [
        *(_conv(2, 6, 2), _norm(nn.BatchNorm2d, 6), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(54, 30), _norm(nn.BatchNorm1d, 30), nn.ReLU()),
    ],
    "smooth": lambda: [
        _conv(2, 6, 2),
        nn.Softplus(5.0),
        nn.Flatten(),
        nn.Linear(54, 30),
        nn.Tanh(),
    ],
    "leaky": lambda: [
        _conv(2, 6, 2),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(54, 30),
        nn.GELU(),
    ],
    "residual": lambda: [
        *(_conv(2, 4, 2), nn.ReLU(), Residual(nn.Sequential(_conv(4, 5), nn.ReLU(), _conv(5, 4)))),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(36, 30), nn.ReLU()),
    ],
    "pooled": lambda: [
        _conv(2, 6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _conv(6, 4),
        nn.ReLU(),
        nn.Flatten(),
    ],
}


def sparse(form: str, seed: int, eps: float = 0.1, density: float = 0.12) -> Case:
    """A form with random masks, a few rows and columns of zeros, and biases everywhere."""
    torch.manual_seed(seed)
    body = FORMS[form]()
    width = nn.Sequential(*body).eval()(torch.rand(1, *SHAPE)).shape[1]
    model = nn.Sequential(*body, nn.Linear(width, 4)).eval()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            weight = layer.weight
            share = max(density, 0.4) if layer is layers[-1] else density
            weight.copy_(torch.randn_like(weight) * (torch.rand_like(weight) < share))
            weight.mul_((share * weight[0].numel()) ** -0.5)
            weight[torch.rand(len(weight)) < 0.2] = 0  # constant
            weight[:, torch.rand(weight.shape[1]) < 0.2] = 0  # the neurons before: dead
            layer.bias.normal_()
    return Case(f"{form}, {seed}", model, torch.rand(3, *SHAPE), eps)

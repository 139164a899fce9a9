"""Activations that an architecture takes by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

Activation = Literal["relu", "softplus", "tanh", "sigmoid", "gelu"]
Beta = Annotated[float, Field(gt=0, le=1e4)]
"""Sharpness of softplus: `log(1 + exp(beta z)) / beta`, the larger the closer to ReLU."""

_PLAIN: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}


def activate(name: Activation, beta: float) -> nn.Module:
    """Return a new activation; `beta` matters to softplus alone."""
    return nn.Softplus(beta) if name == "softplus" else _PLAIN[name]()

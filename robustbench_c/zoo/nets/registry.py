"""The architectures by name, and building one within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import ValidationError
from torch import nn

from robustbench_c.errors import ModelError, did_you_mean
from robustbench_c.zoo.nets.base import Architecture
from robustbench_c.zoo.nets.cnn7 import Cnn7
from robustbench_c.zoo.nets.cnn_small import CnnSmall
from robustbench_c.zoo.nets.mlp import Mlp
from robustbench_c.zoo.nets.preact_resnet18 import PreActResNet18
from robustbench_c.zoo.nets.resnet import ResNet
from robustbench_c.zoo.oneline import first_fault, one_line

MAX_PARAMETERS = 10**9
MAX_CLASSES = 10**5

_FAMILIES: tuple[type[Architecture], ...] = (Mlp, CnnSmall, Cnn7, ResNet, PreActResNet18)
REGISTRY: dict[str, type[Architecture]] = {family.name: family for family in _FAMILIES}


def architectures() -> list[str]:
    """Return the names of the architectures."""
    return list(REGISTRY)


def build(
    architecture: str, input_shape: tuple[int, ...], n_classes: int, **arguments: object
) -> nn.Module:
    """Return a freshly initialised network, on the CPU, in training mode.

    Initial weights are drawn from torch's global generator; seed it to repeat them.

    Args:
        architecture: One of `architectures()`.
        input_shape: Shape of one sample, without the batch.
        n_classes: Number of logits, at least 2.
        **arguments: The architecture's own arguments (see docs/zoo.md).

    Raises:
        ModelError: Unknown architecture, bad argument, unfit shape, or over 10^9 parameters.
    """
    family = resolve(architecture, arguments)
    skeleton(family, input_shape, n_classes)
    return family.make(input_shape, n_classes)


def resolve(architecture: str, arguments: Mapping[str, object]) -> Architecture:
    """Return an architecture with its arguments checked and its defaults filled in."""
    if architecture not in REGISTRY:
        hint = did_you_mean(architecture, architectures())
        raise ModelError(f"no architecture named '{one_line(architecture)}'; {hint}")
    try:
        return REGISTRY[architecture].model_validate(dict(arguments))
    except ValidationError as error:
        known = ", ".join(REGISTRY[architecture].model_fields) or "none"
        raise ModelError(
            f"bad argument of {architecture}: {first_fault(error)}; arguments it takes: {known}"
        ) from error


def skeleton(family: Architecture, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Return the network on the meta device: names, shapes and dtypes, and no memory.

    Raises:
        ModelError: The shape does not suit the family, or there are over 10^9 parameters.
    """
    if not 2 <= n_classes <= MAX_CLASSES:
        raise ModelError(f"{family.name}: {n_classes} classes; legal are 2 to {MAX_CLASSES}")
    if not input_shape or min(input_shape) < 1 or math.prod(input_shape) > MAX_PARAMETERS:
        raise ModelError(f"{family.name}: {input_shape} is not the shape of a sample")
    try:
        with torch.device("meta"):
            network = family.make(input_shape, n_classes)
    except (ValueError, RuntimeError) as error:  # RuntimeError: torch's own size overflow
        raise ModelError(f"{family.name} {one_line(error)}") from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if parameters > MAX_PARAMETERS:
        raise ModelError(
            f"{family.describe()} has {parameters:.2g} parameters; at most {MAX_PARAMETERS:.0e}"
        )
    return network

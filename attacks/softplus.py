"""Softplus in the place of ReLU, for searching: a kink has no second derivative, softplus has.

An explanation by gradients of a ReLU net is constant between kinks, so its own gradient is zero
almost everywhere. The net with softplus(beta) for ReLU has nearly the same explanation and a
gradient of it (Dombrowski et al., NeurIPS 2019); the larger beta, the nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RELU = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_})
_LEAKY = frozenset({F.leaky_relu, F.leaky_relu_})


class SoftplusForReLU(TorchFunctionMode):
    """Inside, ReLU and leaky ReLU are softplus, whether called as modules or as functions.

    Attributes:
        beta: Sharpness of the softplus.
        met: How many were replaced so far.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.met = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a torch function, the two by softplus."""
        given = kwargs or {}
        if func in _RELU:
            self.met += 1
            return self._softplus(args[0] if args else given["input"])
        if func in _LEAKY:
            self.met += 1
            z = args[0] if args else given["input"]
            slope = args[1] if len(args) > 1 else given.get("negative_slope", 0.01)
            return slope * z + (1 - slope) * self._softplus(z)
        return func(*args, **given)

    def _softplus(self, z: Tensor) -> Tensor:
        return F.softplus(z, beta=self.beta)


class ReLUInputs(TorchFunctionMode):
    """Inside, what enters each ReLU and leaky ReLU is kept.

    Attributes:
        found: The inputs, in the order of the calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a torch function."""
        given = kwargs or {}
        if func in _RELU | _LEAKY:
            self.found.append(args[0] if args else given["input"])
        return func(*args, **given)

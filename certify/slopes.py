"""Derivatives of activations, as functions of what the activation takes.

A graph of gradients multiplies by these: torch's own backward calls take the activation's value,
from which no mask can be bounded. At a kink, where there are several slopes, torch's is given, and
bounds hold them all (Clarke's generalised gradient).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def step(z: Tensor, at: float) -> Tensor:
    """Of ReLU, and of `threshold` where it passes z on: 1 above `at`."""
    return (z > at).to(z.dtype)


def two_slopes(z: Tensor, left: float) -> Tensor:
    """Of leaky ReLU."""
    return torch.where(z > 0, torch.ones_like(z), left)


def between(z: Tensor, low: float, high: float) -> Tensor:
    """Of hardtanh, ReLU6 and the like: 1 between the ends."""
    return ((z > low) & (z < high)).to(z.dtype)


def elu_slope(z: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    """Of ELU, SELU and CELU."""
    left = alpha * scale * input_scale
    return torch.where(z > 0, scale, left * torch.exp(z.clamp(max=0) * input_scale))


def softplus_slope(z: Tensor, beta: float, threshold: float) -> Tensor:
    """Of softplus, which torch makes the identity above a threshold."""
    return torch.where(z * beta > threshold, 1.0, torch.sigmoid(z * beta))


def sigmoid_slope(z: Tensor) -> Tensor:
    """Of the logistic function."""
    return torch.sigmoid(z) * torch.sigmoid(-z)


def tanh_slope(z: Tensor) -> Tensor:
    """Of tanh."""
    return 4 * torch.sigmoid(2 * z) * torch.sigmoid(-2 * z)


def gelu_slope(z: Tensor, approximate: str = "none") -> Tensor:
    """Of GELU, in both forms."""
    if approximate == "tanh":
        k, c = math.sqrt(8 / math.pi), 0.044715
        s = torch.sigmoid(k * (z + c * z**3))
        return s + z * s * (1 - s) * k * (1 + 3 * c * z * z)
    normal: Tensor = torch.special.ndtr(z)
    return normal + z * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def silu_slope(z: Tensor) -> Tensor:
    """Of SiLU."""
    s = torch.sigmoid(z)
    return s + z * s * torch.sigmoid(-z)


def batch_norm_back(g: Tensor, weight: Tensor | None, var: Tensor, eps: float) -> Tensor:
    """The gradient through batch norm in eval mode: by channel, times a constant."""
    factor = torch.rsqrt(var + eps)
    factor = factor if weight is None else factor * weight
    return g * factor.view(1, -1, *(1,) * (g.dim() - 2))


def avg_pool_back(
    g: Tensor,
    sizes: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """The gradient through average pooling of a value of these sizes."""
    result: Tensor = torch.ops.aten.avg_pool2d_backward(
        g,
        g.new_zeros(sizes),
        kernel,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor,
    )
    return result


def adaptive_avg_pool_back(g: Tensor, sizes: list[int]) -> Tensor:
    """The gradient through adaptive average pooling of a value of these sizes."""
    result: Tensor = torch.ops.aten._adaptive_avg_pool2d_backward(g, g.new_zeros(sizes))
    return result


def max_pool_back(
    g: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> Tensor:
    """The gradient through max pooling of x."""
    settings = (kernel, stride, padding, dilation, ceil_mode)
    _, indices = F.max_pool2d_with_indices(x, *settings)
    result: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(g, x, *settings, indices)
    return result


MASKS: frozenset[Any] = frozenset({step, between})
"""The slopes that are 0 or 1: a product with one does not round."""

"""Hard-concrete gates (Louizos et al., ICLR 2018): random, often exactly 0 or 1, differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TEMPERATURE = 2 / 3
_LOW, _HIGH = -0.1, 1.1
_EDGE = 1e-6


def sampled_gate(log_alpha: Tensor, noise: Tensor) -> Tensor:
    """A gate's value for uniform noise in (0, 1) (equations 10 and 11)."""
    noise = noise.clamp(_EDGE, 1 - _EDGE)
    logits = noise.log() - (-noise).log1p() + log_alpha
    return _stretched(torch.sigmoid(logits / _TEMPERATURE))


def mean_gate(log_alpha: Tensor) -> Tensor:
    """The value that is used when training is over (equation 13)."""
    return _stretched(torch.sigmoid(log_alpha))


def open_share(log_alpha: Tensor) -> Tensor:
    """Probability that a gate is not 0 (equation 12)."""
    return torch.sigmoid(log_alpha - _TEMPERATURE * math.log(-_LOW / _HIGH))


def transformed_l1(share: Tensor, a: float) -> Tensor:
    """`(a + 1) c / (a + c)`: nearer to counting what is not 0 than c is (Zhang and Xin 2018)."""
    return (a + 1) * share / (a + share)


def _stretched(value: Tensor) -> Tensor:
    return (value * (_HIGH - _LOW) + _LOW).clamp(0, 1)

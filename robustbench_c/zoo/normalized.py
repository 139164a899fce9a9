"""Normalisation as a layer of the model, so that attacks and proofs work in the data's own box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """`model((x - mean) / std)`, with mean and std as buffers.

    Args:
        model: Maps the normalised batch to logits.
        mean: One value per channel (of an image) or feature (of a vector).
        std: As mean, above 0.
        input_shape: Shape of one sample; its first axis is the channel or feature.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_shape: Sequence[int],
    ) -> None:
        super().__init__()
        shape = (len(mean), *(1 for _ in input_shape[1:]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(shape))
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch of shape (n, *input_shape)."""
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits

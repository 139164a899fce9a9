"""Random shift and mirroring of image batches, vectorised, with an explicit generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustbench_c.training.config import Augmentation


def augment(x: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Shift and mirror each image by its own draw.

    Args:
        x: (n, channels, height, width).
        config: How far, and whether to mirror.
        generator: On the device of `x`.

    Returns:
        Of the shape of `x`, made of its own pixel values only, so it stays in the input box.
    """
    n, _, height, width = x.shape
    reach = config.shift
    offsets = torch.randint(2 * reach + 1, (2, n, 1), generator=generator, device=x.device)
    rows = offsets[0] + torch.arange(height, device=x.device)
    columns = offsets[1] + torch.arange(width, device=x.device)
    if config.flip:
        mirrored = torch.rand(n, 1, generator=generator, device=x.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate").permute(0, 2, 3, 1)
    sample = torch.arange(n, device=x.device)[:, None, None]
    return padded[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

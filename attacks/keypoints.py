"""Blobs of an image, by the difference of Gaussians that SIFT uses (Lowe, IJCV 2004, section 3)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

_SMALLEST = 0.7  # standard deviation of the finest scale, in pixels
_RATIO = 1.6  # between neighbouring scales: the difference of Gaussians is then nearly a Laplacian


def _blur(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur along the last two axes, edges repeated.

    Term by term, so that no bit of an image depends on the others of its batch.
    """
    for axis in (-1, -2):
        size = images.shape[axis]
        reach = min(math.ceil(3 * deviation), size)
        weights = [math.exp(-0.5 * (i / deviation) ** 2) for i in range(-reach, reach + 1)]
        place = torch.arange(size, device=images.device)
        blurred = torch.zeros_like(images)
        for i, weight in zip(range(-reach, reach + 1), weights, strict=True):
            moved = images.index_select(axis, (place + i).clamp(0, size - 1))
            blurred = blurred + moved * (weight / sum(weights))
        images = blurred
    return images


def keypoints(images: Tensor, count: int) -> Tensor:
    """The most salient blobs of each image.

    Args:
        images: (n, channels, height, width).
        count: Blobs for each; at most as many as there are pixels.

    Returns:
        (n, count, 4): row, column, standard deviation in pixels, salience (>= 0). Peaks come first,
        by salience; where there are too few the most salient other places follow.
    """
    gray = images[:, 0]
    for channel in images.unbind(1)[1:]:
        gray = gray + channel
    height, width = gray.shape[1:]
    scales = [_SMALLEST]
    while scales[-1] * _RATIO <= min(height, width) / 4:
        scales.append(scales[-1] * _RATIO)
    blurred = [_blur(gray, scale) for scale in (*scales, scales[-1] * _RATIO)]
    response = torch.stack([(a - b).abs() for a, b in pairwise(blurred)], 1)
    around = torch.nn.functional.max_pool3d(response[:, None], 3, stride=1, padding=1)[:, 0]
    first = (response == around).flatten(1)
    rank = torch.where(first, 2.0, 1.0) + response.flatten(1) / (
        1e-30 + 2 * response.amax((1, 2, 3))[:, None]
    )
    best = rank.argsort(dim=1, descending=True, stable=True)[:, : min(count, height * width)]
    level, place = best // (height * width), best % (height * width)
    deviation = torch.tensor(scales, device=images.device)[level]
    salience = response.flatten(1).gather(1, best)
    return torch.stack([place // width, place % width, deviation, salience], 2)

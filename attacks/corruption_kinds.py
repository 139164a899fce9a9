"""What common corruptions do to an image, each by one number: noise, blur, weather, digital.

The names and ideas are those of Hendrycks and Dietterich, "Benchmarking neural network robustness
to common corruptions and perturbations" (ICLR 2019). Recipes and strengths are this module's own:
frost and fog are made of fractal noise, not of photographs, and lengths in pixels grow with the
image, so that its figures are not to be set beside those of CIFAR-10-C or ImageNet-C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.images import gaussian_blur, grid, jpeg, plasma, resample, shifted_sum, smooth_noise
from attacks.randomness import gaussian, uniform

KindName = Literal[
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "speckle-noise",
    "gaussian-blur",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "snow",
    "frost",
    "fog",
    "spatter",
    "brightness",
    "contrast",
    "saturate",
    "elastic",
    "pixelate",
    "jpeg",
]
KINDS: tuple[KindName, ...] = get_args(KindName)
_SIDE = 28  # lengths are in pixels of an image of this size, and grow with the image
_ANGLES = 16


@dataclass(frozen=True)
class Kind:
    """One kind of corruption.

    Attributes:
        strengths: For the severities 1 to 5.
        apply: Of images in units of their box (CPU, float64, (n, C, H, W)), a strength and the
            keys of the samples; values beyond 0 and 1 are cut off afterwards.
        meaning: What the strength is.
    """

    strengths: tuple[float, float, float, float, float]
    apply: Callable[[Tensor, float, Tensor], Tensor]
    meaning: str


def _pixels(images: Tensor, length: float) -> float:
    return length * min(images.shape[-2:]) / _SIDE


def _normal(images: Tensor, keys: Tensor) -> Tensor:
    return gaussian(keys, images[0].numel()).double().view_as(images)


def _uniform(images: Tensor, keys: Tensor) -> Tensor:
    return uniform(keys, images[0].numel()).double().view_as(images)


def _shot(images: Tensor, photons: float, keys: Tensor) -> Tensor:
    """Poisson noise: as many counts as there are values of its distribution function below u."""
    chance, mean = _uniform(images, keys), photons * images
    most = math.ceil(photons + 10 * math.sqrt(photons) + 10)
    share = torch.exp(-mean)
    below, counts = share, torch.zeros_like(images)
    for count in range(1, most + 1):
        counts = counts + (chance >= below)
        share = share * mean / count
        below = below + share
    return counts / photons


def _impulse(images: Tensor, share: float, keys: Tensor) -> Tensor:
    chance = _uniform(images, keys)
    salted = torch.where(chance < share / 2, 1.0, images)
    return torch.where(chance >= 1 - share / 2, 0.0, salted)


def _defocus(images: Tensor, radius: float, keys: Tensor) -> Tensor:
    """A disk, its edge softened over one pixel."""
    radius = _pixels(images, radius)
    reach = range(-math.ceil(radius), math.ceil(radius) + 1)
    disk = {(i, j): min(1.0, radius + 0.5 - math.hypot(i, j)) for i in reach for j in reach}
    disk = {place: weight for place, weight in disk.items() if weight > 0}
    weights = torch.tensor([[w / sum(disk.values()) for w in disk.values()]], dtype=torch.float64)
    return shifted_sum(images, list(disk), weights)


def _glass(images: Tensor, length: float, keys: Tensor) -> Tensor:
    """Each pixel shows a random neighbour; slightly blurred."""
    height, width = images.shape[-2:]
    away = _pixels(images, length) * (2 * uniform(keys, 2 * height * width).double() - 1)
    down, right = away.view(-1, 2, height, width).round().unbind(1)
    rows, columns = grid(images)
    return gaussian_blur(resample(images, rows + down, columns + right), _pixels(images, 0.4))


def _streak(images: Tensor, length: float, keys: Tensor) -> Tensor:
    """The mean along a line of this many pixels, in a random direction within 45 degrees."""
    tilt = [math.radians(-45 + 90 * k / (_ANGLES - 1)) for k in range(_ANGLES)]
    table = torch.tensor([[math.sin(t), math.cos(t)] for t in tilt], dtype=torch.float64)
    direction = table[(uniform(keys, 1, offset=1 << 40)[:, 0] * _ANGLES).long()]
    down, right = direction[:, :, None, None].unbind(1)
    rows, columns = grid(images)
    taps = 2 * max(1, math.ceil(length / 2)) + 1
    total = torch.zeros_like(images)
    for tap in range(taps):
        away = length * (tap / (taps - 1) - 0.5)
        total = total + resample(images, rows + away * down, columns + away * right)
    return total / taps


def _zoom(images: Tensor, most: float, keys: Tensor) -> Tensor:
    """The mean over zooms from 1 to 1 + most."""
    height, width = images.shape[-2:]
    rows, columns = grid(images)
    middle, centre = (height - 1) / 2, (width - 1) / 2
    total, steps = torch.zeros_like(images), 8
    for step in range(steps + 1):
        factor = 1 + most * step / steps
        rows_of, columns_of = (rows - middle) / factor, (columns - centre) / factor
        total = total + resample(images, rows_of + middle, columns_of + centre)
    return total / (steps + 1)


def _snow(images: Tensor, amount: float, keys: Tensor) -> Tensor:
    """Flakes that fall in one direction, over a picture that grows paler."""
    height, width = images.shape[-2:]
    cells = max(2, round(0.6 * _SIDE))
    noise = smooth_noise(keys, height, width, cells)[:, None]
    flakes = ((noise - (1 - amount)) / 0.15).clamp(0, 1)
    flakes = _streak(flakes, _pixels(images, 3.0), keys)
    return images + 0.3 * amount * (1 - images) + 0.9 * flakes


def _frost(images: Tensor, amount: float, keys: Tensor) -> Tensor:
    """Bright ridges of fractal noise on a grey pane."""
    height, width = images.shape[-2:]
    ridges = 1 - ((plasma(keys, height, width, 0.6) - 0.5).abs() / 0.12).clamp(0, 1)
    pane = (0.35 + 0.65 * ridges * ridges)[:, None]
    return images + amount * (pane - images)


def _fog(images: Tensor, amount: float, keys: Tensor) -> Tensor:
    """Fractal noise on top; the brightest pixel stays the brightest."""
    height, width = images.shape[-2:]
    clouds = plasma(keys, height, width, 0.55)[:, None]
    most = images.amax((1, 2, 3), keepdim=True).clamp_min(0.5)
    return (images + amount * clouds) * (most / (most + amount))


def _spatter(images: Tensor, amount: float, keys: Tensor) -> Tensor:
    """Drops of grey."""
    height, width = images.shape[-2:]
    noise = smooth_noise(keys, height, width, round(0.35 * _SIDE))[:, None]
    drops = ((noise - (1 - amount)) / 0.1).clamp(0, 1)
    return images + drops * (0.65 - images)


def _contrast(images: Tensor, kept: float, keys: Tensor) -> Tensor:
    mean = images.flatten(2).mean(2)[:, :, None, None]
    return mean + kept * (images - mean)


def _saturate(images: Tensor, factor: float, keys: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    return grey + factor * (images - grey)


def _elastic(images: Tensor, length: float, keys: Tensor) -> Tensor:
    """Pulled about by two smooth fields."""
    height, width = images.shape[-2:]
    length, cells = _pixels(images, length), 5
    down, right = (
        2 * smooth_noise(keys, height, width, cells, part * (cells + 1) ** 2) - 1 for part in (0, 1)
    )
    rows, columns = grid(images)
    return resample(images, rows + length * down, columns + length * right)


def _pixelate(images: Tensor, share: float, keys: Tensor) -> Tensor:
    """The mean of each block of pixels in place of them."""
    for dim in (2, 3):
        side = images.shape[dim]
        count = max(1, round(share * side))
        block = torch.arange(side) * count // side
        sums = torch.zeros_like(images).index_add(dim, block, images)
        sizes = torch.zeros(side, dtype=images.dtype).index_add(
            0, block, torch.ones(side, dtype=images.dtype)
        )
        means = sums / sizes.clamp_min(1.0).view(-1, *[1] * (3 - dim))
        images = means.index_select(dim, block)
    return images


KIND: dict[KindName, Kind] = {
    "gaussian-noise": Kind(
        (0.05, 0.08, 0.12, 0.16, 0.22),
        lambda images, sigma, keys: images + sigma * _normal(images, keys),
        "standard deviation",
    ),
    "shot-noise": Kind((100, 50, 25, 12, 6), _shot, "photons at full brightness"),
    "impulse-noise": Kind((0.01, 0.03, 0.06, 0.1, 0.16), _impulse, "share of values lost"),
    "speckle-noise": Kind(
        (0.1, 0.15, 0.22, 0.32, 0.45),
        lambda images, sigma, keys: images + sigma * images * _normal(images, keys),
        "standard deviation as a share of the value",
    ),
    "gaussian-blur": Kind(
        (0.5, 0.8, 1.1, 1.5, 2.0),
        lambda images, sigma, keys: gaussian_blur(images, _pixels(images, sigma)),
        "standard deviation in pixels",
    ),
    "defocus-blur": Kind((0.8, 1.2, 1.7, 2.3, 3.0), _defocus, "radius in pixels"),
    "glass-blur": Kind((0.7, 1.0, 1.5, 2.1, 3.0), _glass, "reach in pixels"),
    "motion-blur": Kind(
        (2.0, 4.0, 6.0, 8.5, 11.0),
        lambda images, length, keys: _streak(images, _pixels(images, length), keys),
        "length in pixels",
    ),
    "zoom-blur": Kind((0.06, 0.12, 0.19, 0.27, 0.36), _zoom, "largest zoom, less 1"),
    "snow": Kind((0.16, 0.2, 0.24, 0.28, 0.33), _snow, "share of flakes"),
    "frost": Kind((0.15, 0.25, 0.35, 0.45, 0.55), _frost, "opacity"),
    "fog": Kind((0.2, 0.4, 0.7, 1.1, 1.6), _fog, "brightness of the fog"),
    "spatter": Kind((0.2, 0.26, 0.32, 0.38, 0.45), _spatter, "share of drops"),
    "brightness": Kind(
        (0.08, 0.16, 0.24, 0.32, 0.4), lambda images, more, keys: images + more, "added"
    ),
    "contrast": Kind((0.75, 0.55, 0.4, 0.25, 0.12), _contrast, "share of the contrast kept"),
    "saturate": Kind((1.3, 1.7, 2.2, 3.0, 4.0), _saturate, "factor of the distance from grey"),
    "elastic": Kind((0.8, 1.2, 1.7, 2.3, 3.0), _elastic, "largest shift in pixels"),
    "pixelate": Kind((0.8, 0.65, 0.5, 0.38, 0.28), _pixelate, "share of rows and columns kept"),
    "jpeg": Kind(
        (60, 40, 25, 15, 8),
        lambda images, quality, keys: jpeg(images, [int(quality)] * len(images)),
        "quality",
    ),
}

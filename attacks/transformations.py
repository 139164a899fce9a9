"""Simple changes of an image, as anyone can make them: no gradients, a list of tries.

Rotations and shifts in the way of Engstrom et al., "Exploring the landscape of spatial robustness"
(ICML 2019): a grid of strengths, black (the lower end of the box) from outside of the picture.
Beside them blur, contrast, brightness, noise and JPEG. "Real attackers don't compute gradients"
(Apruzzese et al., SaTML 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from attacks.errors import AttackError
from attacks.images import gaussian_weights, grid, jpeg, resample, separable_blur
from attacks.randomness import advance, gaussian
from attacks.rows import wide

FamilyName = Literal[
    "rotate", "shift", "rotate-shift", "blur", "contrast", "brightness", "noise", "jpeg"
]
FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)
_COMPASS = [(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]
_DRAWS = 4


@dataclass(frozen=True)
class Family:
    """Transformations of one kind.

    Attributes:
        unit: Of the strength.
        most: The strongest of the range; 0 changes nothing.
        variants: Ways to apply one strength: directions, signs, draws of noise.
        settings: Numbers that `apply` works with, of (strength, variant, shorter side in pixels).
        apply: Changes inputs in units of their box, float64, (n, *shape), by their settings,
            (n, count), and their keys, (n,).
        image: Whether inputs have to be images, (C, H, W).
    """

    unit: str
    most: float
    variants: int
    settings: Callable[[float, int, int], list[float]]
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    image: bool


def _sign(variant: int) -> float:
    return 1.0 - 2.0 * (variant % 2)


def _turn(strength: float, variant: int) -> list[float]:
    angle = math.radians(_sign(variant) * strength)
    return [math.cos(angle), math.sin(angle)]


def _move(strength: float, direction: int) -> list[float]:
    return [part * strength for part in _COMPASS[direction]]


def _affine(unit: Tensor, settings: Tensor, keys: Tensor) -> Tensor:
    """Rotate about the centre, then shift by a share of height and width."""
    height, width = unit.shape[-2:]
    cos, sin, down, right = settings[:, :, None, None].unbind(1)
    rows, columns = grid(unit)
    middle, centre = (height - 1) / 2, (width - 1) / 2
    rows, columns = rows - middle - down * height, columns - centre - right * width
    return resample(
        unit, cos * rows - sin * columns + middle, sin * rows + cos * columns + centre, black=True
    )


def _blur_settings(strength: float, variant: int, side: int) -> list[float]:
    return gaussian_weights(strength * side, math.ceil(3 * FAMILY["blur"].most * side))


def _noise(unit: Tensor, settings: Tensor, keys: Tensor) -> Tensor:
    """Of each draw its own stretch of the stream (3 numbers for one of `gaussian`)."""
    size = unit[0].numel()
    noise = gaussian(advance(keys, settings[:, 1].long() * (3 * size)), size).double()
    return unit + wide(settings[:, 0], unit) * noise.view_as(unit)


FAMILY: dict[FamilyName, Family] = {
    "rotate": Family("degrees", 30.0, 2, lambda s, v, _: [*_turn(s, v), 0, 0], _affine, True),
    "shift": Family(
        "share of the side", 0.1, 8, lambda s, v, _: [1, 0, *_move(s, v)], _affine, True
    ),
    "rotate-shift": Family(
        "share of 30 degrees and a tenth of the side",
        1.0,
        16,
        lambda s, v, _: [*_turn(30.0 * s, v), *_move(0.1 * s, v // 2)],
        _affine,
        True,
    ),
    "blur": Family(
        "standard deviation as a share of the side",
        0.06,
        1,
        _blur_settings,
        lambda unit, weights, keys: separable_blur(unit, weights),
        True,
    ),
    "contrast": Family(
        "share of the contrast about mid-grey that is lost, or by which it is divided",
        0.7,
        2,
        lambda s, v, _: [1.0 - s if v == 0 else 1.0 / (1.0 - s)],
        lambda unit, factor, keys: 0.5 + (unit - 0.5) * wide(factor, unit),
        False,
    ),
    "brightness": Family(
        "share of the box",
        0.3,
        2,
        lambda s, v, _: [_sign(v) * s],
        lambda unit, more, keys: unit + wide(more, unit),
        False,
    ),
    "noise": Family(
        "standard deviation as a share of the box",
        0.15,
        _DRAWS,
        lambda s, v, _: [s, v],
        _noise,
        False,
    ),
    "jpeg": Family(
        "100 less the quality of Pillow's encoder",
        95.0,
        1,
        lambda s, v, _: [round(100.0 - s)],
        lambda unit, quality, keys: jpeg(unit, [int(q) for q in quality[:, 0].tolist()]),
        True,
    ),
}


def families_for(shape: tuple[int, ...]) -> tuple[FamilyName, ...]:
    """The families that apply to samples of `shape`: without (C, H, W) those of any vector."""
    return tuple(name for name in FAMILIES if len(shape) == 3 or not FAMILY[name].image)


def check_families(names: tuple[FamilyName, ...], shape: tuple[int, ...]) -> None:
    """Raise unless all of them exist and apply to samples of `shape`."""
    for name in names:
        if name not in FAMILIES:
            raise AttackError(f"unknown transformation '{name}': use {', '.join(FAMILIES)}")
        if name not in families_for(shape):
            raise AttackError(
                f"'{name}' is for images: samples of shape {tuple(shape)} are not (C, H, W)"
            )


def transform(unit: Tensor, name: FamilyName, settings: Tensor, keys: Tensor) -> Tensor:
    """Apply one family, each sample by its own settings.

    Args:
        unit: Inputs in units of their box (`attacks.images.to_unit`), float64, (n, *shape).
        name: The family.
        settings: Of `Family.settings`, float64, (n, count).
        keys: int64, (n,), one stream of noise for each sample.

    Returns:
        float64, like `unit`, 0 to 1.
    """
    return FAMILY[name].apply(unit, settings, keys).clamp(0.0, 1.0)

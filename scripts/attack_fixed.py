"""What `attack_strength.py` measures at a fixed eps, and of simple transformations."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import torch
from attack_references import Case, Row, subject
from nearest_checks import linear_case
from PIL import Image
from scipy import ndimage

from attacks.apgd import APGDConfig
from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.guided import GuidedConfig
from attacks.registry import AttackConfig, kind_of
from attacks.square import SquareConfig
from attacks.threat import NORMS, Norm
from attacks.transform_search import TransformConfig, transform_attack
from attacks.transformations import FamilyName

SEED, LEVELS = 0, 6
CLEAR = 1.1
"""Samples whose exact distance is as much below eps have to break."""
Array = np.ndarray


def fixed_row(config: AttackConfig, words: str, norm: Norm, classes: int) -> Row:
    """On a linear model, at the median of the exact distances: what breaks of what can."""
    module, x, y, threat, exact = linear_case(norm, classes, n=64)
    threat = replace(threat, eps=float(np.median(exact[np.isfinite(exact)])))
    given = (TiledClassifier(module), x, y, torch.arange(len(x)), threat)
    found = kind_of(config).run(*given, config, SEED)
    broken = recheck(given[0], None, x, found.adversarial, y, threat).broken.numpy()
    if broken[exact > threat.eps * (1 + 1e-6)].any():
        raise AssertionError(f"{words}, {norm}: broken beyond its exact distance")
    near = exact < threat.eps / CLEAR
    return {
        "attack": words,
        "norm": norm,
        "classes": classes,
        "breakable": int(near.sum()),
        "share": float(broken[near].mean()),
    }


def fixed() -> Iterator[Case]:
    """Attacks that do not look for the nearest, on linear models."""
    margins = APGDConfig(loss="probability-margin", targets=9)
    for words, config in (
        ("guided, 1,000 queries", GuidedConfig()),
        ("square, 1,000 queries", SquareConfig(1000)),
        ("apgd, probability-margin", margins),
    ):
        for norm in NORMS:
            for classes in (2, 3, 5):

                def measure(
                    c: Any = config, w: str = words, n: Norm = norm, k: int = classes
                ) -> Row:
                    return fixed_row(c, w, n, k)

                yield f"{words} {norm} {classes}", measure


# transformations ---------------------------------------------------------------------------------


def _sign(way: int) -> int:
    return 1 - 2 * way


def _jpeg(image: Array, strength: float, way: int) -> Array:
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(
        file, "JPEG", quality=round(100 - strength)
    )
    return np.asarray(Image.open(file)) / 255.0


def _rotate(image: Array, strength: float, way: int) -> Array:
    turned: Array = ndimage.rotate(
        image, _sign(way) * strength, reshape=False, order=1, mode="grid-constant"
    )
    return turned


def _shift(image: Array, strength: float, way: int) -> Array:
    ways = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
    moved: Array = ndimage.shift(
        image, strength * len(image) * np.array(ways[way]), order=1, mode="grid-constant"
    )
    return moved


def _blur(image: Array, strength: float, way: int) -> Array:
    reach = ceil(3 * 0.06 * len(image))
    blurred: Array = ndimage.gaussian_filter(
        image, strength * len(image), mode="nearest", radius=reach
    )
    return blurred


def _contrast(image: Array, strength: float, way: int) -> Array:
    return 0.5 + (image - 0.5) * (1 / (1 - strength) if way else 1 - strength)


def _brightness(image: Array, strength: float, way: int) -> Array:
    return image + _sign(way) * strength


BY_OTHERS: dict[FamilyName, tuple[float, int, Callable[[Array, float, int], Array]]] = {
    "rotate": (30.0, 2, _rotate),
    "shift": (0.1, 8, _shift),
    "blur": (0.06, 1, _blur),
    "contrast": (0.7, 2, _contrast),
    "brightness": (0.3, 2, _brightness),
    "jpeg": (95.0, 1, _jpeg),
}
"""Strongest, ways to apply one strength, and the same by scipy, numpy or Pillow."""


def simple_row(name: FamilyName) -> Row:
    """The smallest strength that breaks each sample, by our search and by trying all of them."""
    s, (most, ways, change) = subject(), BY_OTHERS[name]
    config = TransformConfig(LEVELS, draws=0, families=(name,))
    found = transform_attack(*s.given, torch.tensor(0.0), torch.tensor(1.0), config, SEED)
    least = np.full(len(s.x), np.inf)
    for level in range(LEVELS, 0, -1):
        for way in range(ways):
            changed = [change(x[0], most * level / LEVELS, way) for x in s.x.double().numpy()]
            points = torch.from_numpy(np.clip(np.stack(changed), 0, 1)).float()[:, None]
            wrong = s.classifier.logits(points).argmax(1) != s.y
            least[wrong.numpy()] = level / LEVELS
    ours = found.share.numpy()
    return {
        "family": name,
        "samples": len(least),
        "ours": int(np.isfinite(ours).sum()),
        "theirs": int(np.isfinite(least).sum()),
        "same": float((ours == least).mean()),
    }


def simple() -> Iterator[Case]:
    """Every family that others have too."""
    for name in BY_OTHERS:
        yield name, lambda n=name: simple_row(n)

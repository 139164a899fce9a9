"""Accuracy under common corruptions (Hendrycks and Dietterich, ICLR 2019), at five severities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.corruption_kinds import KIND, KINDS, KindName
from attacks.errors import AttackError
from attacks.images import from_unit, to_unit
from attacks.randomness import stream_keys

SEVERITIES = (1, 2, 3, 4, 5)
_ROWS = 32  # always, so that a mean over pixels is summed alike in any company


def kinds_for(shape: tuple[int, ...]) -> tuple[KindName, ...]:
    """The kinds that apply to samples of `shape`: "saturate" needs three channels, (3, H, W)."""
    return tuple(kind for kind in KINDS if kind != "saturate" or shape[0] == 3)


def check_corruption(kind: str, severity: int, shape: tuple[int, ...]) -> None:
    """Raise AttackError unless a corruption exists and applies to samples of `shape`."""
    if kind not in KINDS:
        raise AttackError(f"unknown corruption '{kind}': use one of {', '.join(KINDS)}")
    if severity not in SEVERITIES:
        raise AttackError(f"severity is {severity}: it must be 1, 2, 3, 4 or 5")
    if len(shape) != 3:
        raise AttackError(f"corruptions are of images (C, H, W): samples have shape {tuple(shape)}")
    if kind not in kinds_for(shape):
        raise AttackError(f"'{kind}' needs three channels: samples have {shape[0]}")


def corrupt(
    x: Tensor, kind: KindName, severity: int, ids: Tensor, seed: int, lower: Tensor, upper: Tensor
) -> Tensor:
    """Corrupt images.

    Everything is done on the CPU in float64, with noise that belongs to the sample, so that an
    image comes out the same in any batch and on any device. The severities of a kind share their
    noise.

    Args:
        x: Images inside the box, float32, (n, C, H, W), n >= 1.
        kind: One of `KINDS`.
        severity: 1 (weakest) to 5.
        ids: Sample ids that key the noise, int64, (n,).
        seed: Seed of the noise.
        lower: Lower end of the box (black), a scalar or of the shape of a sample.
        upper: Upper end (white), likewise.

    Returns:
        Inside the box, float32, like `x`.

    Raises:
        AttackError: No such kind or severity, or not for samples of this shape.
    """
    check_corruption(kind, severity, x.shape[1:])
    low, high, recipe = lower.cpu(), upper.cpu(), KIND[kind]
    found = []
    for start in range(0, len(x), _ROWS):
        part, numbers = x[start : start + _ROWS], ids[start : start + _ROWS].tolist()
        clean = TiledClassifier.pad(part.cpu(), _ROWS)
        keys = stream_keys(seed, f"corruption-{kind}", numbers, 0)
        unit = to_unit(clean, low, high)
        changed = recipe.apply(
            unit, recipe.strengths[severity - 1], TiledClassifier.pad(keys, _ROWS)
        )
        found.append(from_unit(changed, unit, clean, low, high)[: len(part)])
    return torch.cat(found).to(x.device)


@dataclass(eq=False)
class CorruptionResult:
    """Which corrupted samples a model gets right.

    Attributes:
        kinds: Kinds of corruption.
        clean: Right without corruption, bool, (n,).
        correct: Right under each kind and severity, bool, (kinds, 5, n).
    """

    kinds: tuple[KindName, ...]
    clean: Tensor
    correct: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Accuracy by kind and severity, float64, (kinds, 5)."""
        return self.correct.double().mean(2)

    @property
    def mean_accuracy(self) -> float:
        """Mean over kinds and severities, each of the same weight."""
        return float(self.accuracy.mean())


def corruption_accuracy(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    seed: int,
    lower: Tensor,
    upper: Tensor,
    kinds: tuple[KindName, ...] | None = None,
) -> CorruptionResult:
    """Evaluate a model on every kind of corruption at every severity.

    Args:
        classifier: The model, in tiles.
        x: Images inside the box, float32, (n, C, H, W), n >= 1, on the model's device.
        y: True classes, int64, (n,).
        ids: Sample ids that key the noise, int64, (n,).
        seed: Seed of the noise.
        lower: Lower end of the box, a scalar or of the shape of a sample.
        upper: Upper end, likewise.
        kinds: Kinds to use; None: all that apply to the samples.

    Raises:
        AttackError: As `corrupt`.
    """

    def right(inputs: Tensor) -> Tensor:
        logits = classifier.logits(inputs)
        return (logits.argmax(1) == y) & logits.isfinite().all(1)

    kinds = kinds_for(x.shape[1:]) if kinds is None else kinds
    rows = [
        torch.stack([right(corrupt(x, kind, s, ids, seed, lower, upper)) for s in SEVERITIES])
        for kind in kinds
    ]
    return CorruptionResult(kinds, right(x), torch.stack(rows))

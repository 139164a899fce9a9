"""A bound on the memory of a run: how large chunks may be, and what to say of smaller ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from attacks import memory
from attacks.classifier import TiledClassifier, fitting
from robustbench_c import run_log
from robustbench_c.errors import UsageError

_ROWS = 640 << 20
"""What rows take at most, where chunks have their usual sizes."""
_KNOWN = 256 << 20
"""What is known of the nodes takes, at most, likewise; of few numbers less."""
_TOGETHER = 128 * 64
"""Bytes for each number that is known of a sample: parts that are bounded at once, with lines."""
_OF_A_SAMPLE = 160
"""Bytes for each number that is known of one sample, its bounds and its rows."""
_DRAWING = 96 << 20
"""Bytes of what draws pictures; not on a CUDA device."""


def share_for(max_memory: int | None, numbers: int, device: torch.device) -> float:
    """Of their usual size, how large the chunks of bounds may be.

    Args:
        max_memory: Bytes at peak; None: any.
        numbers: Of a sample, that bounds are about.
        device: Where they are made; what is in use there already stays.

    Raises:
        TooLittleMemoryError: There is not enough for one sample.
    """
    if max_memory is None:
        return 1.0
    memory.free(device)
    used = memory.in_use(device) + (0 if device.type == "cuda" else _DRAWING)
    one = _OF_A_SAMPLE * numbers
    if used + one > max_memory:
        raise memory.too_little("bounds", device, used + one)
    usual = _ROWS + min(_KNOWN, _TOGETHER * numbers)
    return min(1.0, 2.0 ** math.floor(math.log2((max_memory - used) / usual)))


def check_limit(max_memory: int | None) -> None:
    """Refuse a bound on memory that is none.

    Raises:
        UsageError: It is not above 0.
    """
    if max_memory is not None and max_memory < 1:
        raise UsageError(f"a bound on memory of {max_memory} bytes: it must be at least 1")


def limit(precise: TiledClassifier | None, x: Tensor, max_memory: int | None) -> None:
    """Bound the passes of a model in float64, of which each takes more than one in float32.

    Args:
        precise: The model; None where there is none.
        x: Samples in float32, (n, *shape).
        max_memory: Bytes at peak; None: any.

    Raises:
        TooLittleMemoryError: There is not enough for one sample.
    """
    if precise is not None and max_memory is not None:
        tile = precise.tiles[0]
        precise.most = fitting(precise, x[:tile].double(), tile, max_memory, gradients=False)


def notices(classifiers: Iterable[TiledClassifier | None], share: float) -> list[str]:
    """What a reader should know of a run whose chunks are small for want of memory."""
    lines = []
    tight = [c for c in classifiers if c is not None and is_tight(c)]
    if tight:
        least = min(c.most or c.tiles[0] for c in tight)
        lines.append(
            f"passes are of {least} samples, for want of memory: last bits, and with them "
            "verdicts, can differ from those of a run with more"
        )
    if share < 1:
        lines.append(
            f"bounds are made in chunks of 1/{round(1 / share)} of the usual size, for want of "
            "memory: their last bits can differ from those of a run with more"
        )
    return lines


def is_tight(*classifiers: TiledClassifier | None) -> bool:
    """Whether passes are below the smallest tile, so that last bits can differ."""
    return any(c is not None and (c.most or c.tiles[0]) < c.tiles[0] for c in classifiers)


@contextmanager
def kept_within(share: float) -> Iterator[None]:
    """Make chunks of a share of their usual size, and log where they become smaller."""
    with memory.within(share), memory.telling(run_log.notice):
        yield

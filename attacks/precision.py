"""float32 in full: no shorter format inside a product, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, matrix products and convolutions of float32 round as float32 does.

    Not TF32, in which CUDA multiplies with 11 bits, and not bfloat16, which
    `torch.set_float32_matmul_precision` lets the CPU use. The caller's settings come back, by
    whichever of torch's two ways they were made: the older one cannot be read after the newer one.
    """
    switches = _switches()
    newer = {switch: switch.fp32_precision for switch in switches}
    try:
        older: tuple[str, bool] | None = (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
        )
    except RuntimeError:
        older = None
    try:
        _set(switches, older, "highest", False, dict.fromkeys(switches, "ieee"))
        yield
    finally:
        _set(switches, older, *(older or ("highest", False)), newer)


def _set(
    switches: list[Any], older: tuple[str, bool] | None, matmul: str, tf32: bool, newer: Any
) -> None:
    if older is not None:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = tf32
    for switch in switches:
        switch.fp32_precision = newer[switch]


def _switches() -> list[Any]:
    """Of torch 2.9 and later; none before."""
    backends = torch.backends
    parts = (backends.cuda, backends.cudnn, backends.mkldnn)
    found = [getattr(part, kind, None) for part in parts for kind in ("matmul", "conv", "rnn")]
    return [switch for switch in found if hasattr(switch, "fp32_precision")]

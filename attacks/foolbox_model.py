"""What foolbox is given to work on: a model on [0, 1], noise of our own, and a world to itself."""

from __future__ import annotations

import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.convolution import FastInputGradients
from attacks.errors import AttackError
from attacks.foolbox_config import library
from attacks.randomness import gaussian, uniform
from attacks.threat import ThreatModel

_CHUNK = 1 << 20  # numbers drawn at once


class Watched(nn.Module):
    """The model on [0, 1], which counts what is asked of it."""

    def __init__(self, classifier: TiledClassifier, x: Tensor, threat: ThreatModel) -> None:
        super().__init__()
        unit = torch.ones_like(x[0]) if threat.scale is None else threat.scale
        self.span = float(((threat.upper - threat.lower) / unit).max())
        self.width = unit * self.span
        self.classifier, self.x, self.threat = classifier, x, threat
        self.forwards = self.backwards = 0
        self.flat = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.wild = torch.zeros_like(self.flat)

    def encode(self) -> Tensor:
        """The samples in [0, 1]."""
        return ((self.x - self.threat.lower) / self.width).clamp(0.0, 1.0)

    def decode(self, z: Tensor) -> Tensor:
        """From [0, 1] to the box."""
        x = self.threat.lower + z * self.width
        return torch.minimum(torch.maximum(x, self.threat.lower), self.threat.upper)

    def forward(self, z: Tensor) -> Tensor:
        """Logits of inputs in [0, 1], one for each sample."""
        x = self.decode(z)
        if len(x) != len(self.x):
            raise AttackError(f"it asks for {len(x)} rows at once, for {len(self.x)} samples")
        if self.threat.immutable is not None:
            x = torch.where(self.threat.immutable, self.x, x)
        if x.requires_grad:
            x.register_hook(self._pulled)  # type: ignore[no-untyped-call]
        with FastInputGradients() if self.classifier.fast else nullcontext():
            logits = self.classifier.module(x.clone())
        self.forwards += 1
        self.classifier.work.forwards += len(x)
        self.wild |= ~logits.detach().isfinite().all(1)
        return typing.cast(Tensor, logits)

    def _pulled(self, gradient: Tensor) -> None:
        self.backwards += 1
        self.classifier.work.backwards += len(gradient)
        pull = gradient.flatten(1).abs().sum(1)
        self.wild |= ~pull.isfinite()
        self.flat |= pull == 0


def row_tensor(rows: Tensor, shared: Tensor, raw: Tensor) -> Any:
    """`raw` as foolbox sees it, with noise from one stream for each row.

    Args:
        rows: Keys of the streams, int64, (n,).
        shared: Key for what is drawn once for all rows, int64, (1,).
        raw: (n, *shape).
    """
    base = library("eagerpy").PyTorchTensor
    n, shape, used = len(rows), tuple(raw.shape[1:]), 0

    def draw(kind: Callable[..., Tensor], words: int, size: Any) -> Tensor:
        nonlocal used
        size = (size,) if isinstance(size, int) else tuple(size)
        second = len(size) > 1 and size[1] == n and size[2:] == shape  # (draws, n, *shape)
        keys = rows if second or size[:1] == (n,) else shared
        count = int(np.prod(size)) // len(keys)
        parts = []
        for begin in range(0, count, _CHUNK // n):
            parts.append(kind(keys, min(_CHUNK // n, count - begin), offset=used + words * begin))
        used += words * count
        found = torch.cat(parts, 1).to(raw.dtype)
        if second:
            return found.view(n, size[0], *shape).transpose(0, 1)
        return found.view(size)

    def uniformly(self: Any, size: Any, low: float = 0.0, high: float = 1.0) -> Any:
        return type(self)(draw(uniform, 1, size) * (high - low) + low)

    def normally(self: Any, size: Any, mean: float = 0.0, stddev: float = 1.0) -> Any:
        return type(self)(draw(gaussian, 3, size) * stddev + mean)

    methods = {"__slots__": (), "uniform": uniformly, "normal": normally}
    return type("RowTensor", (base,), methods)(raw)


@contextmanager
def left_alone(module: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Inside, random numbers are seeded and weights need no gradient; all of it comes back."""
    state, needed = np.random.get_state(), [p for p in module.parameters() if p.requires_grad]
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.inference_mode(False),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            for parameter in needed:
                parameter.requires_grad_(False)
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(state)
        for parameter in needed:
            parameter.requires_grad_(True)

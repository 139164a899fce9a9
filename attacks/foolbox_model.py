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
from attacks.driver import distances, missed
from attacks.errors import AttackError
from attacks.foolbox_config import library
from attacks.problem import Limits
from attacks.randomness import gaussian, uniform
from attacks.rows import wide
from attacks.threat import ThreatModel

_CHUNK = 1 << 20  # numbers drawn at once


class Spent(Exception):  # noqa: N818  # no error: it ends a search
    """No row may ask for more."""


class Watched(nn.Module):
    """The model on [0, 1], which counts what each row asks of it and stops where it may no more.

    A row that has spent its passes fills the tile up from then on: it gets its last answer again,
    and holds its clean sample. Once all rows have, or the time is over, `Spent` ends the search.

    Attributes:
        forwards: Passes of each row, int64, (n,); see `passes`.
        backwards: Gradients of each row, int64, (n,).
        own: Rows that work on their sample, bool, (n,); the others only fill the tile up.
        nearest: Of the points asked for that are misclassified the nearest, (n, *shape); the clean
            sample where there is none. Kept where passes or time are limited.
        met: Whether there is one, bool, (n,).
        flat: Whether a gradient was zero, bool, (n,).
        wild: Whether a logit or a gradient was not finite within eps, bool, (n,).
    """

    def __init__(
        self,
        classifier: TiledClassifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        limits: Limits | None,
    ) -> None:
        super().__init__()
        unit = torch.ones_like(x[0]) if threat.scale is None else threat.scale
        self.span = float(((threat.upper - threat.lower) / unit).max())
        self.width = unit * self.span
        self.classifier, self.x, self.y, self.threat = classifier, x, y, threat
        self.limits, self.most = limits, None if limits is None else limits.queries
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.begun = self.forwards
        self.backwards = torch.zeros_like(self.forwards)
        self.flat = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.wild, self.met = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.own = torch.ones_like(self.flat)
        self.nearest, self.logits = x, x.new_zeros(0)
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    @property
    def open(self) -> Tensor:
        """Rows that may ask, bool, (n,)."""
        return torch.ones_like(self.own) if self.most is None else self.forwards < self.most

    def repeat(self, place: Tensor, own: Tensor) -> None:
        """Rows that are not their `own` do from now on what the row at their `place` does."""
        self.x, self.logits, self.own = self.x[place], self.logits[place], own
        self.begun = self.forwards
        self.forwards = self.forwards[place]
        self.most = None if self.most is None else self.most[place]

    @property
    def passes(self) -> Tensor:
        """Passes about each row's own sample, int64, (n,)."""
        return torch.where(self.own, self.forwards, self.begun)

    def encode(self) -> Tensor:
        """The samples in [0, 1]."""
        return ((self.x - self.threat.lower) / self.width).clamp(0.0, 1.0)

    def decode(self, z: Tensor) -> Tensor:
        """From [0, 1] to the box."""
        x = self.threat.lower + z * self.width
        return torch.minimum(torch.maximum(x, self.threat.lower), self.threat.upper)

    def forward(self, z: Tensor) -> Tensor:
        """Logits of inputs in [0, 1], one for each sample."""
        x, asking = self.decode(z), self.open
        if len(x) != len(self.x):
            raise AttackError(f"it asks for {len(x)} rows at once, for {len(self.x)} samples")
        if not bool(asking.any()) or (self.limits is not None and self.limits.late):
            raise Spent
        if self.threat.immutable is not None:
            x = torch.where(self.threat.immutable, self.x, x)
        if not bool(asking.all()):
            x = torch.where(wide(asking, x), x, self.x)
        if x.requires_grad:
            at = x.detach()
            x.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._pulled(gradient, at, asking)
            )
        with FastInputGradients() if self.classifier.fast else nullcontext():
            logits = typing.cast(Tensor, self.classifier.module(x.clone()))
        if not bool(asking.all()) and len(self.logits):
            logits = torch.where(asking[:, None], logits, self.logits)
        self.logits = logits.detach()
        self.forwards = self.forwards + asking
        self.classifier.work.forwards += len(x)
        asking = asking & self.own
        self._not_finite(asking & ~self.logits.isfinite().all(1), x)
        if self.limits is not None:
            self._note(x.detach(), asking)
        return logits

    def _pulled(self, gradient: Tensor, x: Tensor, asking: Tensor) -> None:
        asking = asking & self.own
        self.backwards += asking
        self.classifier.work.backwards += len(gradient)
        pull = gradient.flatten(1).abs().sum(1)
        self._not_finite(asking & ~pull.isfinite(), x)
        self.flat |= asking & (pull == 0)

    def _not_finite(self, rows: Tensor, x: Tensor) -> None:
        """What is not finite counts within eps; beyond it says nothing of what the attacker may."""
        if bool(rows.any()):
            inside = distances(self.x, x.detach(), self.threat) <= self.threat.eps
            self.wild |= rows & inside
            self.flat |= rows & ~inside

    def _note(self, x: Tensor, asking: Tensor) -> None:
        """Keep the nearest misclassified points: the search may end before it names one."""
        away = distances(self.x, x, self.threat)
        nearer = asking & missed(self.logits, self.y) & (away < self.distance)
        self.distance = torch.where(nearer, away, self.distance)
        self.nearest = torch.where(wide(nearer, x), x, self.nearest)
        self.met |= nearer


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

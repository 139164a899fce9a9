"""What is attacked: model, samples, threat model, and what counts as success."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.result import Progress
from attacks.threat import ThreatModel


@dataclass(frozen=True, eq=False)
class Limits:
    """What a search may spend on its samples, and what is known of them beforehand.

    Attributes:
        clean: Logits of the samples, (n, classes): they are not asked for again.
        queries: Most forward passes of each sample, int64, (n,); None: as many as it takes.
        deadline: When the search ends where it is, by `time.perf_counter`; None: never.
    """

    clean: Tensor
    queries: Tensor | None = None
    deadline: float | None = None

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.perf_counter() >= self.deadline

    def left(self, rows: Tensor, forwards: Tensor) -> Limits:
        """What is left to the samples at `rows` once each has spent `forwards`, int64, (n,)."""
        queries = None if self.queries is None else (self.queries - forwards)[rows]
        return Limits(self.clean[rows], queries, self.deadline)


@dataclass(eq=False)
class Problem:
    """What is attacked: the same while a method runs.

    Attributes:
        classifier: The model, in tiles.
        x: Samples inside the box, float32, (n, *shape), on the model's device.
        y: True classes, int64, (n,).
        ids: Sample ids that key the noise, int64, (n,).
        threat: What the attacker may do, on the same device.
        seed: Seed of the noise.
        targets: A class for each sample, int64, (n,): success is this class predicted, not any
            wrong one. None otherwise.
        confirm: Says of inputs that are misclassified, and their true classes, which of them count
            (float64 may disagree); the search goes on where one does not. None: all do.
        active_set: Whether broken samples leave. Off, they are carried to the end of the run at
            full cost, for the test that this changes no result.
        minimal: Look for the nearest adversarial example: a sample stays to the end of its runs,
            and `eps` only bounds what counts. The method has to be one that comes nearer.
        progress: Called with (samples finished, samples broken) as they change.
        limits: What may be spent; None: whatever the method takes, and one pass for `clean`.
    """

    classifier: TiledClassifier
    x: Tensor
    y: Tensor
    ids: Tensor
    threat: ThreatModel
    seed: int = 0
    targets: Tensor | None = None
    confirm: Callable[[Tensor, Tensor], Tensor] | None = None
    active_set: bool = True
    minimal: bool = False
    progress: Progress | None = None
    limits: Limits | None = None

    @cached_property
    def clean(self) -> Tensor:
        """Logits of the samples, (n, classes); of no samples (0, 2)."""
        if self.limits is not None:
            return self.limits.clean
        if len(self.x) == 0:
            return self.x.new_zeros(0, 2)
        return self.classifier.logits(self.x)

    @cached_property
    def ranked(self) -> Tensor:
        """The other classes of each sample, the likeliest first, int64, (n, classes - 1)."""
        ranked = self.clean.scatter(1, self.y[:, None], -torch.inf)
        return ranked.argsort(dim=1, descending=True, stable=True)[:, :-1]

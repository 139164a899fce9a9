"""What is attacked: model, samples, threat model, and what counts as success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.result import Progress
from attacks.threat import ThreatModel


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

    @cached_property
    def clean(self) -> Tensor:
        """Logits of the samples, (n, classes); of no samples (0, 2)."""
        if len(self.x) == 0:
            return self.x.new_zeros(0, 2)
        return self.classifier.logits(self.x)

    @cached_property
    def ranked(self) -> Tensor:
        """The other classes of each sample, the likeliest first, int64, (n, classes - 1)."""
        ranked = self.clean.scatter(1, self.y[:, None], -torch.inf)
        return ranked.argsort(dim=1, descending=True, stable=True)[:, :-1]

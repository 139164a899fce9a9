"""AC/DC: training alternates between a dense and a compressed network (Peste et al., NeurIPS 2021).

Algorithm 1: dense warm-up, then compressed and dense phases of equal length in turn, then a long
compressed phase. A compressed phase begins with the top k weights by magnitude and keeps that mask;
a dense phase lets all weights train, the pruned ones from zero.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from certify.sparse.base import Settings, Share, Sparsifier
from certify.sparse.masks import Masks
from certify.sparse.moments import forget_momentum
from certify.sparse.schedule import Position


class AlternatingSettings(Settings):
    """What AC/DC can be told; the defaults are the paper's phases for CIFAR.

    Attributes:
        dense_until: Share of the run that is a dense warm-up.
        phase: Length of a phase, as a share of the run.
        compressed_from: Share of the run from which the network stays compressed.
    """

    dense_until: Share = 0.05
    phase: Annotated[float, Field(gt=0, le=1)] = 0.1
    compressed_from: Annotated[float, Field(ge=0, lt=1)] = 0.85

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.dense_until > self.compressed_from:
            raise ValueError(
                f"dense_until ({self.dense_until}) exceeds compressed_from ({self.compressed_from})"
            )
        return self


class Alternating(Sparsifier):
    """Alternates; momentum is forgotten whenever a phase begins.

    What is measured after an epoch of a dense phase is a pruned copy: what would be used then.
    """

    settings_type: ClassVar[type[Settings]] = AlternatingSettings
    settings: AlternatingSettings

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`."""
        compressed = self.compressed(at.step, at.steps)
        if compressed != (at.step > 0 and self.compressed(at.step - 1, at.steps)):
            if compressed:
                masks = Masks.best(self.layout, self.magnitudes(), self.budget)
            else:
                masks = Masks.full(self.model, self.layout)
            self.change(masks, at, optimiser)
            forget_momentum(optimiser)
        return False

    def compressed(self, step: int, steps: int) -> bool:
        """Whether a step is one of a compressed phase."""
        begin = round(self.settings.dense_until * steps)
        if step >= math.floor(self.settings.compressed_from * steps):
            return True
        length = max(1, round(self.settings.phase * steps))
        return step >= begin and (step - begin) // length % 2 == 0

    def settle(self, measured: nn.Module, x: Tensor) -> nn.Module:
        """See `Sparsifier`."""
        if self.masks.sparsity:
            return super().settle(measured, x)
        return self.pruned_copy(measured)

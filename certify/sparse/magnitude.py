"""One-shot magnitude pruning: the smallest weights of a trained network go, the rest trains on."""

from __future__ import annotations

from torch.optim import Optimizer

from certify.sparse.base import Sparsifier
from certify.sparse.masks import Masks
from certify.sparse.schedule import Position


class Magnitude(Sparsifier):
    """Prunes before the first step, or later where training starts dense.

    Attributes:
        settings: Of `Settings`.
    """

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`."""
        if at.step == 0:
            self.change(Masks.best(self.layout, self.magnitudes(), self.budget), at, optimiser)
        return False

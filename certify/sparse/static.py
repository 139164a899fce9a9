"""A random sparse network whose mask never changes: the control of every sparse training."""

from __future__ import annotations

from torch.optim import Optimizer

from certify.sparse.base import Sparsifier
from certify.sparse.masks import Masks
from certify.sparse.schedule import Position


class Static(Sparsifier):
    """Draws the mask before the first step."""

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`."""
        if at.step == 0:
            draw = self.random("mask", 0)
            self.change(Masks.random(self.model, self.layout, self.budget, draw), at, optimiser)
        return False

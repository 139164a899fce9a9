"""Iterative magnitude pruning with rewinding (Frankle et al., ICML 2020, algorithm 2).

Train; prune the smallest of the weights that are kept; set the others back to what they were early
in the first training; train again, and so on. Each training is a cycle of the schedules, and runs
through them whole (in the paper, from where the weights were saved).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from certify.sparse.base import Random, Settings, Sparsifier
from certify.sparse.masks import Masks
from certify.sparse.schedule import Position, geometric_sparsity


class RewindSettings(Settings):
    """What rewinding can be told.

    Attributes:
        rewind_epochs: Epochs of the first cycle after which the weights are saved.
    """

    rewind_epochs: Annotated[float, Field(ge=0)] = 1.0


class Rewind(Sparsifier):
    """Prunes and rewinds at the start of each cycle but the first, by equal shares of what is left.

    Biases, normalisation and its statistics are rewound as well; optimiser and average begin anew.
    """

    settings_type: ClassVar[type[Settings]] = RewindSettings
    settings: RewindSettings

    def __init__(self, model: nn.Module, settings: RewindSettings, random: Random) -> None:
        """See `Sparsifier`."""
        super().__init__(model, settings, random)
        self._saved: dict[str, Tensor] = {}

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`.

        Raises:
            ValueError: There is one cycle only, or it ends before the weights are to be saved.
        """
        save = round(self.settings.rewind_epochs * at.steps_per_epoch)
        if at.cycles == 1:
            raise ValueError("rewinding prunes between cycles: set train.cycles to 2 or more")
        if save >= at.steps_per_cycle:
            epochs = at.steps_per_cycle // at.steps_per_epoch
            raise ValueError(
                f"rewind_epochs ({self.settings.rewind_epochs:g}) has to be less than the "
                f"{epochs} epochs of a cycle"
            )
        if at.step == save:
            self._saved = {n: value.clone() for n, value in self.model.state_dict().items()}
        rounds, within = divmod(at.step, at.steps_per_cycle)
        if rounds == 0 or within:
            return False
        sparsity = geometric_sparsity(self.settings.sparsity, rounds / (at.cycles - 1))
        scores = {
            name: torch.where(self.masks.units[name], size, -torch.inf)
            for name, size in self.magnitudes().items()
        }
        budget = self.layout.budget(sparsity, self.settings.allocation)
        self.change(Masks.best(self.layout, scores, budget), at, optimiser)
        self.model.load_state_dict(self._saved)
        self.masks.apply(self.model)
        return True

    def state(self) -> dict[str, Any]:
        """See `Sparsifier`."""
        return {**super().state(), "saved": {n: value.clone() for n, value in self._saved.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Sparsifier`."""
        super().restore(state)
        self._saved = dict(state["saved"])

"""Dynamic sparse training: weights are dropped and regrown while the network trains.

SparseVLR (Kaur, Salekin and others, arXiv:2211.09945) is this under a verified loss, from a random
sparse start; SET (Mocanu et al., Nature Communications 2018) regrows at random, RigL (Evci et al.,
ICML 2020) by gradient. The gradient is always that of the loss that is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from certify.sparse.base import Random, Settings, Share, Sparsifier
from certify.sparse.layers import prunable
from certify.sparse.masks import Masks, best_of, random_scores
from certify.sparse.schedule import Position, cosine_share, cubic_sparsity

_DECAY = 0.9


class DynamicSettings(Settings):
    """What dynamic sparse training can be told.

    Attributes:
        regrow: By the mean gradient since the last update, by its moving average (decay 0.9 a
            step), or at random.
        replaced: Share of the kept units that the first update replaces; it falls to 0 by a cosine.
        every: Steps between updates.
        until: Share of the run after which masks stay.
        surplus: How many times as many units are kept at the start as in the end; at most half of
            all, so that the start is sparse, unless the end keeps more.
        rises: Shares of the run between which sparsity then rises to that of the end.
    """

    regrow: Literal["gradient", "momentum", "random"] = "gradient"
    replaced: Share = 0.3
    every: Annotated[int, Field(ge=1)] = 100
    until: Annotated[float, Field(gt=0, le=1)] = 0.75
    surplus: Annotated[float, Field(ge=1)] = 1.0
    rises: tuple[Share, Share] = (0.0, 0.5)

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if not self.rises[0] < self.rises[1] <= self.until:
            raise ValueError(f"rises {self.rises} is no span that ends by until ({self.until})")
        return self

    @property
    def start(self) -> float:
        """Sparsity at the start."""
        return min(self.sparsity, max(0.5, 1 - self.surplus * (1 - self.sparsity)))


class Dynamic(Sparsifier):
    """Drops by magnitude, regrows, and so keeps exactly as many weights as the schedule says."""

    settings_type: ClassVar[type[Settings]] = DynamicSettings
    settings: DynamicSettings

    def __init__(self, model: nn.Module, settings: DynamicSettings, random: Random) -> None:
        """See `Sparsifier`."""
        super().__init__(model, settings, random)
        self._gradients: dict[str, Tensor] = {}

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`."""
        told, last = self.settings, self._last(at.steps)
        if at.step == 0:
            draw = self.random("mask", 0)
            budget = self.layout.budget(told.start if last else told.sparsity, told.allocation)
            self.change(Masks.random(self.model, self.layout, budget, draw), at, optimiser)
        elif at.step == last or (at.step < last and at.step % told.every == 0):
            sparsity = cubic_sparsity(told.start, told.sparsity, *told.rises, at.done)
            sparsity = told.sparsity if at.step == last else sparsity
            share = cosine_share(told.replaced, told.until, at.done)
            self.change(self._renewed(sparsity, share, at), at, optimiser)
            if told.regrow == "gradient":
                self._gradients = {}
        return False

    def _last(self, steps: int) -> int:
        """The last step before which masks change: in time, however short the run."""
        return min(math.ceil(self.settings.until * steps), steps - 1)

    def _renewed(self, sparsity: float, share: float, at: Position) -> Masks:
        budget = self.layout.budget(sparsity, self.settings.allocation)
        sizes, growth = self.magnitudes(), self._growth(at)
        kept: dict[str, Tensor] = {}
        for names, count in budget.groups:
            kept |= renewed(
                {n: self.masks.units[n] for n in names},
                {n: sizes[n] for n in names},
                {n: growth[n] for n in names},
                count,
                share,
            )
        return Masks(self.layout, {name: kept[name] for name in self.layout.axes})

    def _growth(self, at: Position) -> dict[str, Tensor]:
        if self.settings.regrow == "random" or not self._gradients:
            return random_scores(self.magnitudes(), self.random("regrow", at.step))
        return self.layout.scores(self._gradients)

    def seen(self) -> None:
        """Take in the gradient of all weights, the pruned ones' too."""
        if self.settings.regrow == "random":
            return
        decay = _DECAY if self.settings.regrow == "momentum" else 1.0
        for name, weight in prunable(self.model).items():
            assert weight.grad is not None
            if name in self._gradients:
                self._gradients[name].mul_(decay).add_(weight.grad)
            else:
                self._gradients[name] = weight.grad.clone()

    def state(self) -> dict[str, Any]:
        """See `Sparsifier`."""
        return {**super().state(), "gradients": {n: g.clone() for n, g in self._gradients.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Sparsifier`."""
        super().restore(state)
        device = next(self.model.parameters()).device
        self._gradients = {name: value.to(device) for name, value in state["gradients"].items()}


def renewed(
    kept: Mapping[str, Tensor],
    sizes: Mapping[str, Tensor],
    growth: Mapping[str, Tensor],
    count: int,
    share: float,
) -> dict[str, Tensor]:
    """Drop the smallest of the kept units, and grow others in their place.

    What is dropped is not regrown in the same update.

    Args:
        kept: By weight, which units are kept, bool (units,).
        sizes: Magnitudes of the units.
        growth: Scores of the units that could be grown.
        count: How many are to be kept; exactly so many are.
        share: Of those, how many are to be new (fewer where too few are left to grow).

    Returns:
        By weight, which units are kept from now on.
    """
    free = sum(int((~each).sum()) for each in kept.values())
    now = sum(int(each.sum()) for each in kept.values())
    new = max(min(int(share * count), free), count - now)
    stay = best_of({n: torch.where(kept[n], sizes[n], -torch.inf) for n in kept}, count - new)
    grown = best_of({n: torch.where(kept[n], -torch.inf, growth[n]) for n in kept}, new)
    return {name: stay[name] | grown[name] for name in kept}

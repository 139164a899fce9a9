"""HYDRA: which weights stay is learned under the robust loss (Sehwag et al., NeurIPS 2020).

A dense robust network is the start. First its weights W stay as they are and a score s of each is
trained (equation 4): the network computes with `W * mask`, the mask keeps the largest |s|, and its
derivative by |s| is taken to be 1 (straight-through). Then the mask is fixed, and the kept weights
train on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from certify.sparse.base import Random, Settings, Sparsifier
from certify.sparse.layers import prunable
from certify.sparse.learned import Learned
from certify.sparse.masks import Masks
from certify.sparse.schedule import Position, cosine_share


class HydraSettings(Settings):
    """What HYDRA can be told.

    Attributes:
        structure: Single weights only.
        search: Share of the run in which scores are trained.
        score_rate: Learning rate of their Adam at first; it falls to 0 by a cosine.
    """

    structure: Literal["weights"] = "weights"
    search: Annotated[float, Field(gt=0, lt=1)] = 0.5
    score_rate: Annotated[float, Field(gt=0)] = 1e-3


class Hydra(Sparsifier):
    """Trains scores, then the weights that they keep.

    Biases and normalisation stay as they are while scores are trained (batch norm's statistics go
    on moving), and train with the kept weights. The churn log holds the first and the last mask.
    """

    settings_type: ClassVar[type[Settings]] = HydraSettings
    settings: HydraSettings

    def __init__(self, model: nn.Module, settings: HydraSettings, random: Random) -> None:
        """See `Sparsifier`."""
        super().__init__(model, settings, random)
        weights = prunable(model)
        self._dense = {name: weight.detach().clone() for name, weight in weights.items()}
        self._scores = Learned({n: first_scores(weight) for n, weight in self._dense.items()})
        self._rate = settings.score_rate

    @property
    def searching(self) -> bool:
        """Whether scores are being trained: until the mask is fixed, the second change."""
        return len(self.history) < 2

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`."""
        fixed_from = max(1, math.floor(self.settings.search * at.steps))
        if at.step > fixed_from:
            return False
        masks = Masks.best(self.layout, self.layout.scores(self._scores.values), self.budget)
        if at.step in (0, fixed_from):
            self.change(masks, at, optimiser)
        self.masks = masks
        self._rate = cosine_share(self.settings.score_rate, self.settings.search, at.done)
        with torch.no_grad():
            for name, weight in prunable(self.model).items():
                weight.copy_(self._dense[name] * masks.full_masks[name])
        return at.step == fixed_from

    def gradient(self, loss: Callable[[], Tensor]) -> float:
        """See `Sparsifier`; while scores are trained, no gradient is left on the parameters."""
        if not self.searching:
            return super().gradient(loss)
        value = self.backward(loss)
        if math.isfinite(value):
            self._scores.step(self.score_gradients(), self._rate)
            self.model.zero_grad(set_to_none=True)
        return value

    def score_gradients(self) -> dict[str, Tensor]:
        """`grad * W * sign(s)`, for the gradient that is on the weights: |s| is what ranks them."""
        found = {}
        for name, weight in prunable(self.model).items():
            assert weight.grad is not None
            found[name] = weight.grad * self._dense[name] * self._scores.values[name].sign()
        return {name: value.detach() for name, value in found.items()}

    def settle(self, measured: nn.Module, x: Tensor) -> nn.Module:
        """See `Sparsifier`; an average over changing masks is no network that would be used."""
        return super().settle(self.model if self.searching else measured, x)

    def state(self) -> dict[str, Any]:
        """See `Sparsifier`."""
        dense = {name: weight.clone() for name, weight in self._dense.items()}
        return {**super().state(), "dense": dense, "scores": self._scores.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Sparsifier`."""
        super().restore(state)
        self._dense = {name: state["dense"][name] for name in self._dense}
        self._scores.restore(state["scores"])


def first_scores(weight: Tensor) -> Tensor:
    """Scores in proportion to the weights, `sqrt(6 / fan_in) w / max|w|` (section 3)."""
    fan_in = weight[0].numel()
    largest = weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny)  # a layer may be all 0
    return math.sqrt(6 / fan_in) * weight / largest

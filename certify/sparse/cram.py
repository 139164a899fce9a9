"""CrAM+: training for a network that can be pruned in one shot (Peste et al., ICLR 2023).

Each step adds the gradient at the weights and the one at compressed weights a small step uphill:
`g + mask * grad L(w')`, `w' = TopK(w + rho g)`, `g = grad L(w)` (algorithm 1 with the dense
loss added, section 3.2). How many weights TopK keeps is drawn for each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from certify.sparse.base import Random, Settings, Sparsifier, Sparsity
from certify.sparse.masks import Masks
from certify.sparse.schedule import Position

_BATCH = 250


class CramSettings(Settings):
    """What CrAM+ can be told.

    Attributes:
        rho: Length of the step uphill, in gradients (which are not normalised).
        lighter: Sparsities that are drawn as well as the one of the end; those above it are not.
    """

    rho: Annotated[float, Field(ge=0)] = 0.05
    lighter: tuple[Sparsity, ...] = (0.5, 0.7, 0.9)


class Cram(Sparsifier):
    """Trains a dense network; what is measured is a copy, pruned by magnitude, not trained on.

    The copy's batch norm takes its statistics anew, from training samples: after one-shot pruning
    the old ones are wrong. The network's own are those of its dense weights.
    """

    settings_type: ClassVar[type[Settings]] = CramSettings
    settings: CramSettings

    def __init__(self, model: nn.Module, settings: CramSettings, random: Random) -> None:
        """See `Sparsifier`."""
        super().__init__(model, settings, random)
        lighter = [each for each in settings.lighter if each < settings.sparsity]
        self._sparsities = [*lighter, settings.sparsity]
        self.drawn = settings.sparsity

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`; draws the step's sparsity."""
        draw = self.random("sparsity", at.step)
        self.drawn = self._sparsities[int(torch.randint(len(self._sparsities), (), generator=draw))]
        return False

    def gradient(self, loss: Callable[[], Tensor]) -> float:
        """See `Sparsifier`; the loss that is returned is the dense network's."""
        value = self.backward(loss)
        if not math.isfinite(value):
            return value
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        first = [weight.grad for weight in weights if weight.grad is not None]
        here = [weight.detach().clone() for weight in weights]
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with torch.no_grad():
            for weight, uphill in zip(weights, first, strict=True):
                weight.add_(self.settings.rho * uphill)
        budget = self.layout.budget(self.drawn, self.settings.allocation)
        masks = Masks.best(self.layout, self.magnitudes(), budget)
        masks.apply(self.model)
        compressed = self.backward(loss)
        masks.apply_to_gradients(self.model)
        with torch.no_grad():
            for weight, old, gradient in zip(weights, here, first, strict=True):
                weight.copy_(old)
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        return value if math.isfinite(compressed) else compressed

    def settle(self, measured: nn.Module, x: Tensor) -> nn.Module:
        """See `Sparsifier`."""
        pruned = self.pruned_copy(measured)
        renew_statistics(pruned, x)
        return pruned


@torch.no_grad()
def renew_statistics(model: nn.Module, x: Tensor) -> None:
    """Set batch norm's running statistics to those of the given inputs, the mean over batches."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean of all batches, each as much
        norm.train()
    for part in x.tensor_split(math.ceil(len(x) / _BATCH)):
        model(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()

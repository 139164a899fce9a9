"""What a sparse training method is: what it does to a network between steps, and to gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from certify.sparse.budget import Allocation
from certify.sparse.layers import Structure, prunable
from certify.sparse.masks import Layout, Masks
from certify.sparse.moments import renew_moments
from certify.sparse.schedule import Position

Sparsity = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Random = Callable[[str, int], Generator]
"""A CPU generator for a purpose and a step, the same on every call."""


class Settings(BaseModel):
    """Settings that every method has.

    Attributes:
        sparsity: Share of the prunable weights that is zero in the end.
        allocation: How the rest is shared out to the layers.
        structure: Single weights, or channels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sparsity: Sparsity
    allocation: Allocation = "erk"
    structure: Structure = "weights"


@dataclass(frozen=True)
class Update:
    """One change of the masks: a line of the churn log.

    Attributes:
        step: Before which step.
        sparsity: Share of the prunable weights that is zero from then on, counted.
        dropped: Units that were kept before.
        grown: Units that were not.
        kept: Weights that each layer keeps.
    """

    step: int
    sparsity: float
    dropped: int
    grown: int
    kept: Mapping[str, int]


class Dense:
    """What the training loop calls, and all of it for a dense network: nothing is pruned.

    `begin` before each step, `gradient` to get the step's gradient, `stepped` after it, `settle`
    before anything is measured. All state that later steps depend on is in `state`.

    Attributes:
        model: The network.
        history: Every change of the masks.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take a network, already on its device."""
        self.model = model
        self.history: list[Update] = []

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """Change masks or weights where it is time to; say whether the weights began anew."""
        return False

    def gradient(self, loss: Callable[[], Tensor]) -> float:
        """Leave the step's gradient on the parameters, and return the loss; none if not finite."""
        return self.backward(loss)

    def backward(self, loss: Callable[[], Tensor]) -> float:
        """Leave a loss's gradient by all parameters on them, and return it; none if not finite."""
        found = loss()
        value = float(found.detach())
        if math.isfinite(value):
            # Gradients that the objective's attack left on the weights must not add up.
            self.model.zero_grad(set_to_none=True)
            torch.autograd.backward(found)
        return value

    def stepped(self) -> None:
        """Take in that the optimiser has moved the weights."""

    def settle(self, measured: nn.Module, x: Tensor) -> nn.Module:
        """Return the network that would be used if training ended here.

        Args:
            measured: The model, or the moving average of it; changed in place and returned where
                training may go on from that, else left as it is and copied.
            x: Inputs of training samples, (n, *shape), for what has to be estimated anew.
        """
        return measured

    def state(self) -> dict[str, Any]:
        """All that a resume needs, as tensors and plain values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            KeyError, TypeError, ValueError: It is of another method or network.
        """
        if state:
            raise ValueError("the state is of a sparse training")


class Sparsifier(Dense):
    """A sparse training method at work on one network.

    Attributes:
        budget: What is kept in the end.
        masks: What is kept at present; what is not is zero after every step.
    """

    settings_type: ClassVar[type[Settings]] = Settings

    def __init__(self, model: nn.Module, settings: Settings, random: Random) -> None:
        """Take a network, already on its device.

        Raises:
            ValueError: The sparsity does not suit the network.
        """
        super().__init__(model)
        self.settings, self.random = settings, random
        self.layout = Layout.of(model, settings.structure)
        self.budget = self.layout.budget(settings.sparsity, settings.allocation)
        self.masks = Masks.full(model, self.layout)

    def gradient(self, loss: Callable[[], Tensor]) -> float:
        """See `Dense`."""
        value = self.backward(loss)
        if math.isfinite(value):
            self.seen()
            self.masks.apply_to_gradients(self.model)
        return value

    def seen(self) -> None:
        """Look at the gradient of all weights, before the pruned ones' is dropped."""

    def stepped(self) -> None:
        """Put the pruned weights back to zero."""
        self.masks.apply(self.model)

    def settle(self, measured: nn.Module, x: Tensor) -> nn.Module:
        """See `Dense`."""
        self.masks.apply(measured)
        return measured

    def change(self, masks: Masks, at: Position, optimiser: Optimizer) -> None:
        """Take new masks: regrown weights start at zero and without momentum."""
        dropped, grown = self.masks.changes(masks)
        renew_moments(optimiser, self.model, self.masks, masks)
        self.masks.apply(self.model)  # what is regrown may hold no old value
        masks.apply(self.model)
        self.masks = masks
        self.history.append(Update(at.step, masks.sparsity, dropped, grown, masks.counts()))

    def magnitudes(self) -> dict[str, Tensor]:
        """Each unit's magnitude, (units,)."""
        return self.layout.scores(prunable(self.model))

    def pruned_copy(self, measured: nn.Module) -> nn.Module:
        """A copy of a network, pruned by magnitude to the sparsity of the end."""
        copied = copy.deepcopy(measured)
        scores = self.layout.scores(prunable(copied))
        Masks.best(self.layout, scores, self.budget).apply(copied)
        return copied

    def state(self) -> dict[str, Any]:
        """See `Dense`."""
        return {
            "masks": {name: kept.clone() for name, kept in self.masks.units.items()},
            "history": [asdict(update) for update in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Dense`."""
        units = {name: state["masks"][name] for name in self.layout.axes}
        for name, kept in self.masks.units.items():
            if units[name].shape != kept.shape or units[name].dtype != torch.bool:
                raise ValueError(f"the mask of '{name}' does not fit")
        self.masks = Masks(
            self.layout, {n: units[n].to(k.device) for n, k in self.masks.units.items()}
        )
        self.history = [Update(**update) for update in state["history"]]

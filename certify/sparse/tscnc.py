"""TSCNC: gates under a transformed sparsity penalty, and a well-conditioned last layer.

After Feng, Lin, Gao and Wei, "Lipschitz Constant Meets Condition Number", arXiv:2503.20454: pruning
lowers a layer's Lipschitz constant and worsens its condition number, so both are held. The loss is

    base + penalty * mean of t(c) + condition * log(1e-5 + det(W^T W / n))^2

with c the probability that a weight's gate is open, t the transformed l1 function (a = 100), W the
last linear layer's gated weights, (inputs, outputs), and n its outputs. As in their code, the last
linear layer alone has the condition term. Theirs has gates of filters; here each weight has one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from certify.sparse.base import Random, Settings, Sparsifier
from certify.sparse.gates import mean_gate, open_share, sampled_gate, transformed_l1
from certify.sparse.layers import prunable
from certify.sparse.learned import Learned
from certify.sparse.masks import Masks
from certify.sparse.schedule import Position

_OPEN = math.log(0.9 / 0.1)
"""Where log alpha starts: gates are nearly open."""
_TINY = 1e-5


class TscncSettings(Settings):
    """What TSCNC can be told.

    Attributes:
        structure: Single weights only.
        penalty: Weight of the sparsity penalty.
        condition: Weight of the condition term.
        a: Of the transformed l1 function; it goes from counting (0) to l1 (infinity).
        gate_rate: Learning rate of the gates' Adam.
        gates_until: Share of the run after which the gated weights are pruned, and train on.
    """

    structure: Literal["weights"] = "weights"
    penalty: Annotated[float, Field(ge=0)] = 1.0
    condition: Annotated[float, Field(ge=0)] = 1.0
    a: Annotated[float, Field(gt=0)] = 100.0
    gate_rate: Annotated[float, Field(gt=0)] = 1e-2
    gates_until: Annotated[float, Field(gt=0, lt=1)] = 0.75


class Tscnc(Sparsifier):
    """Trains weights and gates, then prunes to the largest of `gate |w|` and trains these on.

    While there are gates, what is measured is a copy: gated, and pruned as in the end.
    """

    settings_type: ClassVar[type[Settings]] = TscncSettings
    settings: TscncSettings

    def __init__(self, model: nn.Module, settings: TscncSettings, random: Random) -> None:
        """See `Sparsifier`.

        Raises:
            ValueError: Also where the network has no linear layer.
        """
        super().__init__(model, settings, random)
        weights = prunable(model)
        linear = [name for name, weight in weights.items() if weight.dim() == 2]
        if not linear:
            raise ValueError("the condition term needs a linear layer: the model has none")
        self._last = linear[-1]
        self._gates = Learned({n: torch.full_like(w, _OPEN) for n, w in weights.items()})
        self._step = 0

    def begin(self, at: Position, optimiser: Optimizer) -> bool:
        """See `Sparsifier`."""
        self._step = at.step
        if at.step != max(1, math.floor(self.settings.gates_until * at.steps)):
            return False
        self._gate(self.model)
        self.change(Masks.best(self.layout, self.magnitudes(), self.budget), at, optimiser)
        return True

    @property
    def gated(self) -> bool:
        """Whether gates are being trained: until the one pruning."""
        return not self.history

    def gradient(self, loss: Callable[[], Tensor]) -> float:
        """See `Sparsifier`; the weights' and the gates' gradients follow by the chain rule.

        The base loss is taken, and differentiated, with the gated weights in place.
        """
        if not self.gated:
            return super().gradient(loss)
        weights = prunable(self.model)
        draw = self.random("gates", self._step)
        leaves = {n: weight.detach().clone().requires_grad_() for n, weight in weights.items()}
        gated = {
            name: leaf * sampled_gate(self._gates.values[name], _noise(leaf, draw))
            for name, leaf in leaves.items()
        }
        _write(weights, gated)
        value = self.backward(loss)
        _write(weights, leaves)
        own = self.own_loss(gated)
        total = value + float(own.detach())
        if math.isfinite(total):
            through = [(gated[n] * w.grad).sum() for n, w in weights.items() if w.grad is not None]
            names = list(weights)
            wanted = [leaves[n] for n in names] + [self._gates.values[n] for n in names]
            found = torch.autograd.grad(torch.stack(through).sum() + own, wanted)
            for name, gradient in zip(names, found[: len(names)], strict=True):
                weights[name].grad = gradient
            gates = dict(zip(names, found[len(names) :], strict=True))
            self._gates.step(gates, self.settings.gate_rate)
        return total

    def own_loss(self, gated: Mapping[str, Tensor]) -> Tensor:
        """What is added to the base loss, a scalar."""
        shares = torch.cat([open_share(value).flatten() for value in self._gates.values.values()])
        sparse = transformed_l1(shares, self.settings.a).mean()
        last = condition_term(gated[self._last])
        return self.settings.penalty * sparse + self.settings.condition * last

    @torch.no_grad()
    def _gate(self, model: nn.Module) -> None:
        for name, weight in prunable(model).items():
            weight.mul_(mean_gate(self._gates.values[name]))

    def settle(self, measured: nn.Module, x: Tensor) -> nn.Module:
        """See `Sparsifier`."""
        if not self.gated:
            return super().settle(measured, x)
        copied = copy.deepcopy(measured)
        self._gate(copied)
        return self.pruned_copy(copied)

    def state(self) -> dict[str, Any]:
        """See `Sparsifier`."""
        return {**super().state(), "gates": self._gates.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Sparsifier`."""
        super().restore(state)
        self._gates.restore(state["gates"])


def condition_term(weight: Tensor) -> Tensor:
    """`log(1e-5 + det(W^T W / n))^2` of a linear layer's weight, (outputs n, inputs).

    It is least where the determinant is 1. Where the determinant is far below 1e-5, as it is for
    small weights, or for more outputs than inputs, the term is nearly constant.
    """
    found: Tensor = torch.linalg.det(weight @ weight.T / len(weight))
    return (_TINY + found).log().square()


def _noise(like: Tensor, draw: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=draw).to(like.device)


@torch.no_grad()
def _write(weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])

"""Adversarial weight perturbation (Wu et al., NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from attacks.adversarial import Adversarial, check_not_negative
from attacks.errors import AttackError
from attacks.objectives import Base


class _With(nn.Module):
    """A network that computes with other tensors than its own; it keeps its own."""

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model, self.tensors = model, dict(tensors)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = functional_call(self.model, self.tensors, (x,))
        return found


@dataclass(kw_only=True, eq=False)
class AWP:
    """Another objective's loss at weights that are moved uphill first.

    `base(w + v)`, with `v = gamma |w| g / |g|` for each layer, g the gradient of the base's loss at
    w (their algorithm with one step, A = K2 = 1). Points are crafted once, at w, and used for
    both losses. Only tensors of two and more dimensions are moved: no biases, no batch norm. The
    weights themselves are never written, so there is nothing to restore, and the first loss
    moves no statistics of batch norm.

    Attributes:
        base: The objective, one that crafts: pgd, trades, mart, n-fgsm or gradalign.
        gamma: Length of the move relative to each layer's weights, >= 0; the warm-up multiplies it.
    """

    base: Base
    gamma: float = 0.01

    def __post_init__(self) -> None:
        check_not_negative(gamma=self.gamma)
        if not isinstance(self.base, Adversarial):
            raise AttackError(
                "awp needs a base that crafts points: pgd, trades, mart, n-fgsm or gradalign"
            )

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator, scale: float
    ) -> Tensor:
        """See `Adversarial.__call__`."""
        assert isinstance(self.base, Adversarial)
        points = self.base.craft(model, x, y, generator=generator, scale=scale)
        state = generator.get_state()
        here = _leaves(model)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        first = _With(model, here | buffers)
        loss = self.base.value(first, x, points, y, generator=generator, scale=scale)
        moves = _uphill(here, loss, self.gamma * scale)
        generator.set_state(state)
        own = dict(model.named_parameters())
        second = _With(model, {name: own[name] + move for name, move in moves.items()})
        return self.base.value(second, x, points, y, generator=generator, scale=scale)


def _leaves(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the weights that are moved, to take gradients by; those that train."""
    return {
        name: weight.detach().clone().requires_grad_()
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.dim() > 1
    }


def _uphill(weights: Mapping[str, Tensor], loss: Tensor, gamma: float) -> dict[str, Tensor]:
    """The move of each tensor; none where it has no gradient."""
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    moves = {}
    for (name, weight), gradient in zip(weights.items(), found, strict=True):
        if gradient is not None:
            length = gradient.norm()
            unit = torch.where(length > 0, gradient / length, 0.0)
            moves[name] = gamma * weight.detach().norm() * unit
    return moves

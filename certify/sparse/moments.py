"""What an optimiser remembers of weights that are pruned or regrown."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from certify.sparse.masks import Masks

_FIRST = ("momentum_buffer", "exp_avg")
_SECOND = ("exp_avg_sq",)


@torch.no_grad()
def renew_moments(optimiser: Optimizer, model: nn.Module, before: Masks, after: Masks) -> None:
    """Forget the momentum of what was pruned or regrown.

    First moments of both become 0. Adam's second moments of what was regrown become the mean of
    those that stay: from 0, the first steps of a new weight would be several times too long, since
    the correction for a late start counts the steps of the whole run.

    Args:
        optimiser: Changed in place; SGD, Adam and AdamW.
        model: Whose parameters it moves.
        before: Masks so far.
        after: Masks from now on.
    """
    known = dict(model.named_parameters())
    for name, kept in after.full_masks.items():
        state = optimiser.state.get(known[name], {})
        stays = kept & before.full_masks[name]
        for key in _FIRST:
            if isinstance(state.get(key), Tensor):
                state[key].masked_fill_(~stays, 0.0)
        for key in _SECOND:
            if isinstance(state.get(key), Tensor):
                squares = state[key]
                mean = squares[stays].mean() if bool(stays.any()) else squares.new_zeros(())
                squares.copy_(torch.where(stays, squares, torch.where(kept, mean, 0.0)))


@torch.no_grad()
def forget_momentum(optimiser: Optimizer) -> None:
    """Set the first moments of all parameters to 0."""
    for state in optimiser.state.values():
        for key in _FIRST:
            if isinstance(state.get(key), Tensor):
                state[key].zero_()

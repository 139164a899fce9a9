"""Losses an attacker raises, one value for each sample; larger is better for the attacker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["ce", "margin", "dlr", "probability-margin"]
LOSSES: tuple[LossName, ...] = get_args(LossName)
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of class `y` minus the largest other logit: negative when `y` is not predicted.

    Args:
        logits: (n, classes), classes >= 2.
        y: int64, (n,).

    Returns:
        (n,); NaN where a logit is NaN.
    """
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf)
    return own - others.amax(1)


def gain(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Logit of class `target` less that of `y`, (n,)."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def _dlr_scale(logits: Tensor, targeted: bool) -> Tensor:
    top = logits.topk(4 if targeted else 3, dim=1).values
    last = (top[:, 2] + top[:, 3]) / 2 if targeted else top[:, 2]
    return top[:, 0] - last + 1e-12


def _softened(logits: Tensor) -> Tensor:
    """Logits that range over more than 60, shrunk to that; others as they are."""
    spread = (logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True)).detach()
    return logits / (spread / 60.0).clamp_min(1.0)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy, in a form whose gradient survives a confident model.

    `softmax(z)_y - 1` is 0 in float32 once the margin exceeds 17, so the usual form stops pulling
    at the true class, and a gradient of zero has passed for robustness before. The log-odds form
    does not subtract. Logits that range over more than 60 are shrunk to that first, or `exp`
    underflows; this changes no other model.
    """
    z = _softened(logits)
    own, others = z.gather(1, y[:, None])[:, 0], z.scatter(1, y[:, None], -torch.inf)
    return -F.logsigmoid(own - others.logsumexp(1))


def attack_loss(name: LossName, classes: int, targeted: bool) -> Loss:
    """The loss `name`, away from the true class or towards a target.

    "ce" is cross-entropy; "margin" the difference of logits (Carlini and Wagner 2017); "dlr" the
    difference of logits ratio (Croce and Hein 2020, equations 6 and 7). DLR needs three classes,
    four when targeted, and falls back to the margin for fewer. "probability-margin" is the
    difference of probabilities (Liu et al. 2024, arXiv 2411.15210).

    Returns:
        A function of logits (n, classes), true classes (n,) and target classes (n,), which an
        untargeted loss ignores; its values are (n,).
    """

    def raw(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        if targeted:
            return gain(logits, y, target)
        return -margin(logits, y)

    if name == "probability-margin":
        return lambda logits, y, target: raw(_softened(logits).softmax(1), y, target)
    if name == "ce" and targeted:
        return lambda logits, y, target: -_cross_entropy(logits, target)
    if name == "ce":
        return lambda logits, y, target: _cross_entropy(logits, y)
    if name == "margin" or classes < (4 if targeted else 3):
        return raw
    return lambda logits, y, target: raw(logits, y, target) / _dlr_scale(logits, targeted)

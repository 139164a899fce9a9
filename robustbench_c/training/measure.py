"""Accuracy of a model on tensors, and whether model and data fit each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.modes import evaluating
from robustbench_c.errors import ModelError
from robustbench_c.training.interfaces import Attack, Verifier

_BATCH = 250


def accuracy(model: nn.Module, x: Tensor, y: Tensor, attack: Attack | None = None) -> float:
    """Share of samples classified rightly, and not broken by `attack` where one is given.

    Args:
        model: The classifier; measured in evaluation mode.
        x: (n, *shape), n > 0.
        y: int64, (n,).
        attack: Says which samples it breaks.
    """
    with evaluating(model):
        with torch.no_grad():
            logits = torch.cat([model(part) for part in torch.split(x, _BATCH)])
        right = logits.argmax(1) == y
        if attack is not None:
            right &= ~attack(model, x, y)
    return int(right.sum()) / len(x)


def verified_accuracy(model: nn.Module, x: Tensor, y: Tensor, verifier: Verifier) -> float:
    """Share of samples that `verifier` proves robust, measured in evaluation mode."""
    with evaluating(model):
        parts = zip(torch.split(x, _BATCH), torch.split(y, _BATCH), strict=True)
        proved = sum(int(verifier(model, *part).sum()) for part in parts)
    return proved / len(x)


def check_fits(model: nn.Module, x: Tensor, classes: int) -> None:
    """Run two samples through the model before any time is spent.

    Raises:
        ModelError: It does not take inputs of this shape, or gives another number of classes.
    """
    shape = tuple(x.shape[1:])
    try:
        with evaluating(model), torch.no_grad():
            outputs = model(x[:2])
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"the model does not take inputs of shape {shape}: {reason}") from error
    if not isinstance(outputs, Tensor) or outputs.shape != (len(x[:2]), classes):
        given = tuple(outputs.shape[1:]) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelError(
            f"the model gives outputs of shape {given} for data of {classes} classes: "
            f"build it with {classes} classes"
        )

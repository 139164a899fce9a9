"""The float64 form of a model, where there is one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.driver import in_float64


def precise_form(module: nn.Module, x: Tensor, tiles: tuple[int, ...]) -> TiledClassifier | None:
    """Return the model in float64, or None where it cannot compute in that.

    It runs in the smallest tile alone: that larger ones give the same bits was measured in float32.

    Args:
        module: The model in float32.
        x: Samples to try it on, (n, *shape), on the model's device.
        tiles: Tiles of the model in float32.
    """
    converted = in_float64(module)
    if converted is None:
        return None
    classifier = TiledClassifier(converted, tiles[:1])
    try:
        logits = classifier.logits(x[:1].double())
    except (RuntimeError, TypeError):  # a tensor of another type, hidden from `double()`
        return None
    return classifier if logits.dtype == torch.float64 else None

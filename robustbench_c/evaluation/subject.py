"""What is evaluated: a model with a name and a hash, however it came."""

from __future__ import annotations

import torch
from torch import nn

from leaderboards.manifest import ModelInfo
from robustbench_c.errors import ModelError
from robustbench_c.zoo.hashing import state_hash
from robustbench_c.zoo.loading import LoadedModel
from robustbench_c.zoo.normalized import Normalized


def subject(model: nn.Module | LoadedModel) -> LoadedModel:
    """Return a model that `load` gave as it is, and any other module with its hash.

    Raises:
        ModelError: A weight is NaN or Inf.
    """
    if isinstance(model, LoadedModel):
        return model
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"the model's tensor '{name}' holds NaN or Inf")
    name = type(model).__name__
    return LoadedModel(model, name, None, state_hash(model, str(model)), name, ())


def model_info(model: LoadedModel) -> ModelInfo:
    """What a manifest says of a model."""
    return ModelInfo(
        name=model.name,
        architecture=model.architecture[:500],
        sha256=model.sha256,
        parameters=sum(p.numel() for p in model.module.parameters()),
        normalisation=_normalisation(model.module),
        card=None if model.card is None else model.card.model_dump(mode="json"),
    )


def _normalisation(module: nn.Module) -> str:
    if not isinstance(module, Normalized):
        return "none"
    mean, std = module.mean.flatten().tolist(), module.std.flatten().tolist()
    if len(mean) > 4:
        return f"mean and std of {len(mean)} features"
    shown = (" ".join(f"{value:.6g}" for value in values) for values in (mean, std))
    return "mean {}, std {}".format(*shown)

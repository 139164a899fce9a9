"""What is evaluated: a model with a name and a hash, however it came."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from certify.sparse.accounting import count
from leaderboards.manifest import ModelInfo, SizeInfo
from robustbench_c.errors import ModelError
from robustbench_c.evaluation.averaging import AveragedModel
from robustbench_c.evaluation.digest import digest
from robustbench_c.zoo.hashing import state_hash
from robustbench_c.zoo.loading import LoadedModel
from robustbench_c.zoo.normalized import Normalized
from robustbench_c.zoo.packed import packed_bytes
from robustbench_c.zoo.states import check_finite

_TORCHS = frozenset(vars(nn.Module()))
"""Attributes of a module that are torch's own."""


def subject(model: nn.Module | LoadedModel) -> LoadedModel:
    """Return a model that `load` gave as it is, and any other module with its hash.

    Raises:
        ModelError: A part in training mode, weights that are not float32, a NaN, or an Inf among
            the weights.
    """
    if isinstance(model, LoadedModel):
        return model
    kind = type(model).__name__
    for name, part in model.named_modules():
        if part.training:
            raise ModelError(
                f"{f'the part {name!r} of ' if name else ''}the model is in training mode "
                "(dropout and batch norm would be live): call model.eval()"
            )
    for name, weight in model.named_parameters():
        if weight.dtype != torch.float32:
            raise ModelError(f"{kind}: {name} is {weight.dtype}: call model.float()")
        check_finite(name, weight.detach(), kind)
    for name, buffer in model.named_buffers():
        if bool(buffer.isnan().any()):  # Inf is legal here: attention masks hold it
            raise ModelError(f"{kind}: the buffer {name} holds NaN")
    return LoadedModel(model, kind, None, state_hash(model, _how_it_computes(model)), kind, ())


def _how_it_computes(model: nn.Module) -> str:
    """What determines a model's output besides its weights, as far as it can be seen.

    Its structure, the source of the methods that are not torch's own, and plain attributes. A run
    is taken up by the hash of this: two models that compute differently may not share one.
    """
    parts = [str(model)]
    for name, part in model.named_modules():
        own = [c for c in type(part).__mro__ if not c.__module__.startswith(("torch.", "builtins"))]
        methods = [m for c in own for m in vars(c).values() if inspect.isfunction(m)]
        plain = {key: _plain(value) for key, value in vars(part).items() if key not in _TORCHS}
        parts += [name, *(c.__qualname__ for c in own), *map(_source, methods), repr(plain)]
    return "\n".join(parts)


def _source(method: object) -> str:
    try:
        return inspect.getsource(method)  # type: ignore[arg-type]  # a function: see its caller
    except OSError:  # typed into an interpreter that keeps no source
        return ""


def _plain(value: object) -> str | None:
    if isinstance(value, Tensor):
        return digest(value.detach())
    if isinstance(value, tuple | list):
        return repr([_plain(item) for item in value])
    return repr(value) if isinstance(value, bool | int | float | str | bytes) else None


def model_info(model: LoadedModel, x: Tensor | None = None) -> ModelInfo:
    """What a manifest says of a model; with samples to run, also what it takes."""
    draws = model.draws if isinstance(model, AveragedModel) else None
    return ModelInfo(
        name=model.name,
        architecture=model.architecture[:500],
        sha256=model.sha256,
        parameters=sum(p.numel() for p in model.module.parameters()),
        normalisation=_normalisation(model.module),
        card=None if model.card is None else model.card.model_dump(mode="json"),
        size=None if x is None or draws else _size(model.module, x),
        draws=draws,
    )


def _size(module: nn.Module, x: Tensor) -> SizeInfo:
    counts = count(module, x)
    return SizeInfo(
        weights=counts.weights,
        nonzero_weights=counts.nonzero_weights,
        nonzero_parameters=counts.nonzero_parameters,
        macs=counts.macs,
        nonzero_macs=counts.nonzero_macs,
        dense_bytes=counts.bytes,
        packed_bytes=packed_bytes(module),
    )


def _normalisation(module: nn.Module) -> str:
    if not isinstance(module, Normalized):
        return "none"
    mean, std = module.mean.flatten().tolist(), module.std.flatten().tolist()
    if len(mean) > 4:
        return f"mean and std of {len(mean)} features"
    shown = (" ".join(f"{value:.6g}" for value in values) for values in (mean, std))
    return "mean {}, std {}".format(*shown)

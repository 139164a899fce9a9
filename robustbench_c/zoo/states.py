"""State dicts of others: finding them, unwrapping their keys, and fitting them strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robustbench_c.errors import ModelError
from robustbench_c.zoo.oneline import one_line

_NESTS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "ema",
    "ema_state_dict",
    "model_ema",
)
"""Keys under which training scripts put the state dict, the first of them wins."""

_PREFIXES = ("module.", "_orig_mod.", "model.")
"""Left in the keys by DataParallel, torch.compile and a wrapper."""

_DEPTH = 4
"""How deep a state dict may be nested (a pickle may hold a dict that holds itself)."""

_CONVERTED = (torch.float16, torch.bfloat16, torch.float64)


@dataclass
class State:
    """A state dict as found, with what was done to it."""

    tensors: dict[str, Tensor]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notices: list[str] = field(default_factory=list)


def unnest(raw: object, label: str, notices: list[str]) -> nn.Module | dict[str, Tensor]:
    """Return the module or the tensors by name inside what a file held.

    Raises:
        ModelError: There is neither.
    """
    for _ in range(_DEPTH):
        if not isinstance(raw, dict):
            break
        raw = dict(dict.items(raw))  # a pickle can shadow the methods of an OrderedDict
        found = [key for key in _NESTS if isinstance(raw.get(key), dict | nn.Module)]
        if not found:
            break
        others = f" (beside it: {', '.join(found[1:])}; not used)" if found[1:] else ""
        notices.append(f"state dict found under '{found[0]}'{others}")
        raw = raw[found[0]]
    if isinstance(raw, nn.Module):
        return raw
    if not isinstance(raw, dict):
        raise ModelError(f"{label} holds no state dict but an object of type {type(raw).__name__}")
    tensors = {str(key): value for key, value in raw.items() if isinstance(value, Tensor)}
    if not raw or len(tensors) < len(raw):
        keys = one_line(", ".join(map(str, raw)), 120) or "none"
        raise ModelError(
            f"{label} holds no state dict: looked under {', '.join(_NESTS)}; its keys are: {keys}"
        )
    return tensors


def unwrap(tensors: dict[str, Tensor], notices: list[str]) -> State:
    """Return the tensors by plain name.

    Wrappers' prefixes are stripped, normalisation is taken out, and pruning masks are applied.

    Raises:
        ModelError: Normalisation or a mask that is none.
    """
    state = State(_strip(tensors, notices), notices=notices)
    inner = {key for key in state.tensors if key.startswith("model.")}
    if inner and set(state.tensors) - inner == {"mean", "std"}:  # the layout of Normalized
        state.mean, state.std = (_values(state.tensors.pop(key)) for key in ("mean", "std"))
        notices.append("took mean and std from the state dict")
        state.tensors = _strip(state.tensors, notices)
    _unmask(state.tensors, notices)
    return state


def _unmask(tensors: dict[str, Tensor], notices: list[str]) -> None:
    """Put the pruned tensor in the place of NAME_orig and NAME_mask (`torch.nn.utils.prune`)."""
    names = [key.removesuffix("_orig") for key in tensors if key.endswith("_orig")]
    names = [name for name in names if name + "_mask" in tensors and name not in tensors]
    for name in names:
        whole, mask = tensors.pop(name + "_orig"), tensors.pop(name + "_mask")
        if whole.shape != mask.shape or not bool(((mask == 0) | (mask == 1)).all()):
            raise ModelError(f"{one_line(name, 60)}_mask is no mask of 0 and 1 of its weight")
        tensors[name] = torch.where(mask != 0, whole, torch.zeros_like(whole))
    if names:
        notices.append(f"applied the pruning masks of {len(names)} tensors")


def _values(tensor: Tensor) -> tuple[float, ...]:
    if tensor.numel() > 10**6 or not tensor.is_floating_point():
        raise ModelError(
            f"mean or std in the state dict is {_shape(tensor)} {_dtype(tensor.dtype)}"
        )
    return tuple(tensor.double().reshape(-1).tolist())


def _strip(tensors: dict[str, Tensor], notices: list[str]) -> dict[str, Tensor]:
    again = True
    while again:
        again = False
        for prefix in _PREFIXES:
            if tensors and all(key.startswith(prefix) for key in tensors):
                tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
                notices.append(f"stripped prefix '{prefix}' from {len(tensors)} keys")
                again = True
    return tensors


def misfit(tensors: Mapping[str, Tensor], network: nn.Module) -> str | None:
    """Return how names and shapes differ from a network's, on one line; None when they agree."""
    expected = network.state_dict()
    missing = [f"{key} {_shape(expected[key])}" for key in expected if key not in tensors]
    extra = [
        f"{one_line(key, 60)} {_shape(tensors[key])}" for key in tensors if key not in expected
    ]
    shapes = [
        f"{key} is {_shape(tensors[key])}, expected {_shape(expected[key])}"
        for key in expected
        if key in tensors and tensors[key].shape != expected[key].shape
    ]
    groups = (("missing", missing), ("unexpected", extra), ("of the wrong shape", shapes))
    faults = [f"{label}: {_first(items)}" for label, items in groups if items]
    return "; ".join(faults) or None


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _first(items: list[str], shown: int = 3) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more


def fit(state: State, network: nn.Module, label: str) -> dict[str, Tensor]:
    """Return the tensors with the dtypes of a network whose names and shapes they have.

    Raises:
        ModelError: Integer, complex, sparse or quantised weights, or a NaN or Inf.
    """
    fitted: dict[str, Tensor] = {}
    converted: dict[torch.dtype, int] = {}
    for key, expected in network.state_dict().items():
        tensor = state.tensors[key].detach()
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ModelError(
                f"{label}: {key} is sparse or quantised, or has no values; dense weights are needed"
            )
        if tensor.dtype != expected.dtype:
            if expected.dtype != torch.float32 or tensor.dtype not in _CONVERTED:
                raise ModelError(
                    f"{label}: {key} has dtype {_dtype(tensor.dtype)}, "
                    f"expected {_dtype(expected.dtype)}"
                )
            converted[tensor.dtype] = converted.get(tensor.dtype, 0) + 1
            tensor = tensor.float()
        check_finite(key, tensor, label)
        fitted[key] = tensor
    for dtype, count in converted.items():
        state.notices.append(f"converted {count} tensors from {_dtype(dtype)} to float32")
    return fitted


def check_finite(key: str, tensor: Tensor, label: str) -> None:
    """Raise ModelError, naming the tensor, when it holds a NaN or an Inf."""
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ModelError(f"{label}: {bad} of {tensor.numel()} values of {key} are NaN or Inf")


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""A second device on a machine that has none: its tensors lie on the CPU and carry a tag.

Inside `pretend_cuda()`, tensors can be moved to "cuda" and made there. They say that they are
there, compute what the CPU computes, and what CUDA refuses is an error here too: operands on two
devices, numpy's view of a tensor of the device, a generator of another device, whole numbers in a
matrix product. What torch allows is allowed: CPU tensors of no dimension in arithmetic, CPU
indices of tensors of the device, copies.

A tag belongs to a storage, so that views have it too. Tensors that are made inside torch, where
real torch would put them on its operands' device, fit everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda", 0)
ANY = "any"

_aten = torch.ops.aten
_SCALARS_FIT = {
    *("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where", "masked_fill", "fill"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "pow"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "remainder"),
}
"""Operations that take a CPU tensor of no dimension beside tensors of the device."""
_INDEXED = {"index", "_unsafe_index", "index_put", "_index_put_impl", "_unsafe_index_put"}
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "dot", "convolution", "addmv"}


class DeviceError(BaseException):
    """What CUDA would not have done; no Exception, which runs write down as a sample's own."""


class Tags:
    """Where storages are: on the CPU unless they are told to be elsewhere."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Any]] = {}

    def of(self, tensor: Tensor) -> Any:
        storage = _storage(tensor)
        if storage is None:
            return ANY
        return self._known.get(storage._cdata, (None, None))[1]

    def put(self, tensor: Tensor, tag: Any) -> None:
        storage = _storage(tensor)
        if storage is None:
            return
        if tag is None:
            self._known.pop(storage._cdata, None)
        else:
            # the weak reference keeps the storage's address from being given to another
            self._known[storage._cdata] = (StorageWeakRef(storage), tag)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list | tuple):
        return []
    return [tensor for part in parts for tensor in _tensors(part)]


def _storage(tensor: Tensor) -> Any:
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):  # a wrapper of functorch
        return None


class _Operations(TorchDispatchMode):
    """Sees every operation below autograd: refuses what mixes devices, and tags what comes out."""

    def __init__(self, tags: Tags) -> None:
        super().__init__()
        self.tags = tags

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        plain = name.removesuffix("_")
        inputs = _tensors((args, kwargs))
        places = [self.tags.of(v) for v in inputs]
        if plain not in ("copy", "_to_copy") and CUDA in places:
            self._check(plain, args, kwargs, inputs, places)
        if plain in _PRODUCTS and CUDA in places and not inputs[0].dtype.is_floating_point:
            raise DeviceError(f"{name} of whole numbers is not implemented for CUDA")
        result = func(*args, **kwargs)
        if plain == "copy":
            return result
        known = [place for place in places if place != ANY]
        tag = CUDA if CUDA in known else None if known else ANY
        for out in _tensors(result):
            self.tags.put(out, tag)
        return result

    def _check(self, name: str, args: Any, kwargs: Any, inputs: Any, places: Any) -> None:
        if name in _INDEXED:
            own = self.tags.of(args[0])
            inputs = [args[0], *args[2:3]]  # indices may lie on the CPU
            indices = [self.tags.of(i) for i in args[1] if i is not None]
            if own is None and CUDA in indices:
                raise DeviceError(f"{name}: indices on cuda of a tensor on the CPU")
            places = [self.tags.of(v) for v in inputs if isinstance(v, Tensor)]
            if CUDA not in places:
                return
        for number, (value, place) in enumerate(zip(inputs, places, strict=False)):
            fits = value.dim() == 0 and (name in _SCALARS_FIT or (name in _INDEXED and number))
            if place is None and not (fits and (number or name == "where" or name == "mul")):
                told = [
                    (tuple(v.shape), str(p or "cpu")) for v, p in zip(inputs, places, strict=False)
                ]
                raise DeviceError(f"{name}: operands on two devices: {told}")


class _Functions(TorchFunctionMode):
    """Sees every call from Python: where tensors are made, moved, and what they say of it."""

    def __init__(self, tags: Tags) -> None:
        super().__init__()
        self.tags = tags
        self.pinned = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            told = self._property(func, args)
            return func(*args, **kwargs) if told is NotImplemented else told
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and name in ("to", "cpu", "cuda", "type_as"):
            return self._move(func, name, args, kwargs)
        if first is not None and name == "pin_memory":
            if self.tags.of(first) == CUDA:
                raise DeviceError(
                    "cannot pin a tensor on cuda: only dense CPU tensors can be pinned"
                )
            self.pinned += 1
            return first.clone()
        if first is not None and name in ("numpy", "__array__") and self.tags.of(first) == CUDA:
            raise DeviceError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu()")
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        asked = None if asked is None else torch.device(asked)
        drawn = kwargs.get("generator")
        result = func(*args, **kwargs)
        inside = isinstance(func, torch._ops.OpOverload)
        inputs = _tensors((args, kwargs))
        if drawn is not None:
            place = asked if asked is not None else self._device(first)
            if place.type != drawn.device.type:
                raise DeviceError(f"{name}: a generator of another device than {place}")
        if inside and asked is not None and asked.type == "cpu" and not inputs:
            return result  # as traced: where the trace was
        if asked is None and first is not None and name.startswith("new_"):
            asked = self._device(first)
        if asked is not None or not inputs:
            tag = CUDA if asked is not None and asked.type == "cuda" else None
            return self._put(result, tag) if isinstance(result, Tensor) else result
        return result

    def _put(self, tensor: Tensor, tag: Any) -> Tensor:
        if self.tags.of(tensor) not in (tag, ANY):
            tensor = tensor.clone()
        self.tags.put(tensor, tag)
        return tensor

    def _device(self, tensor: Tensor | None) -> torch.device:
        if tensor is None:
            return torch.device("cpu")
        tag = self.tags.of(tensor)
        # a wrapper while tracing: all that is traced here lies on the device
        return CUDA if tag == CUDA or (tag == ANY and _storage(tensor) is None) else tensor.device

    def _property(self, func: Any, args: Any) -> Any:
        told = getattr(getattr(func, "__self__", None), "__name__", "")
        if told == "device":
            return self._device(args[0])
        if told in ("is_cuda", "is_cpu"):
            return (self._device(args[0]).type == "cuda") == (told == "is_cuda")
        return NotImplemented

    def _move(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        tensor, rest, device = args[0], list(args[1:]), kwargs.pop("device", None)
        if name in ("cpu", "cuda"):
            device, rest = name, []
        if rest and isinstance(rest[0], str | torch.device | int):
            device = rest.pop(0)
        elif rest and isinstance(rest[0], Tensor):
            other = rest.pop(0)
            device, rest = self._device(other), [other.dtype, *rest]
        kwargs.pop("other", None)
        target = self._device(tensor) if device is None else torch.device(device)
        there = self.tags.of(tensor)
        tag = there if device is None else CUDA if target.type == "cuda" else None
        moved = tensor
        for option in [*rest, kwargs.get("dtype")]:
            if isinstance(option, torch.dtype):
                moved = moved.to(option)
        if there == tag:
            return moved
        if there == ANY and moved is tensor and _storage(tensor) is None:
            return moved  # a wrapper while tracing
        moved = moved.clone() if moved is tensor else moved
        self.tags.put(moved, tag)
        return moved


class _Generator(torch.Generator):
    """A generator of either device; it draws what one of the CPU draws."""

    place: torch.device

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.place


def _load(load: Any, tags: Tags, *args: Any, map_location: Any = "cpu", **options: Any) -> Any:
    content = load(*args, map_location="cpu", **options)
    there = torch.device(map_location).type == "cuda"
    return tree_map_only(Tensor, lambda t: tags.put(t, CUDA if there else None) or t, content)


class _Nothing(nullcontext[None]):
    """Stands for `torch.cuda.device`."""


@contextmanager
def pretend_cuda() -> Iterator[_Functions]:
    """Inside, there is a device "cuda"; yields what counts the tensors that were pinned."""
    tags = Tags()
    functions = _Functions(tags)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "synchronize", lambda *_: None)
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "a pretended device")
        patch.setattr(torch.cuda, "device", _Nothing)
        patch.setattr(torch, "load", partial(_load, torch.load, tags))
        patch.setattr(torch.cuda, "manual_seed", lambda *_: None)
        patch.setattr(torch.cuda, "get_rng_state", lambda *_: None)
        patch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
        # what a trace remembers of tensors; and what asks in C++ where tensors are
        patch.setattr(FakeTensor, "device", property(lambda _: CUDA))
        patch.setattr(
            import_module("torch.nn.utils.clip_grad"), "_has_foreach_support", lambda *_: False
        )
        patch.setattr(import_module("torch.optim.optimizer"), "_foreach_supported_types", [])
        stack.enter_context(functions)
        stack.enter_context(_Operations(tags))
        yield functions

"""Translating an ONNX graph into a torch.fx graph, node by node.

The meaning of the file is its function of one sample, with a batch axis of size 1 in front. What is
built computes that function for each sample of a batch: each value that depends on the input keeps
the batch on axis 0, and an operation that would move, drop or mix it is refused. What does not
depend on the input is computed once, here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from robustbench_c.errors import ModelError
from robustbench_c.foreign.reading import printable

if TYPE_CHECKING:
    import onnx

T = TypeVar("T", int, float, str, tuple[int, ...])

_MOST_ELEMENTS = 1 << 28
_BATCH = 2  # of the meta tensors; not 1, so that a batch axis that got lost or moved shows


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph.

    Attributes:
        tensor: The constant itself or, for what depends on the input, a meta tensor.
        node: Where it is computed; None for a constant.
        learned: Whether an initializer of the file goes into this constant.
        name: The initializer's name, if it is one.
    """

    tensor: Tensor
    node: fx.Node | None = None
    learned: bool = False
    name: str = ""

    @property
    def constant(self) -> bool:
        """Whether it is the same for all inputs."""
        return self.node is None

    @property
    def shape(self) -> tuple[int, ...]:
        """As the file sees it: with a batch of 1."""
        shape = tuple(self.tensor.shape)
        return shape if self.constant else (1, *shape[1:])

    @property
    def rank(self) -> int:
        """Number of axes, the batch included."""
        return self.tensor.ndim


class Graph:
    """The fx graph under construction, and the tensors it refers to."""

    def __init__(self, input_shape: Sequence[int], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._graph = fx.Graph()
        self._tensors: dict[str, Tensor] = {}
        self._lifted: dict[Value, fx.Node] = {}
        self._folded = 0
        sample = torch.empty(_BATCH, *input_shape, dtype=dtype, device="meta")
        self.input = Value(sample, self._graph.placeholder("x"))

    def emit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Value:
        """Add a call of `function`, or make it now if all arguments are constants.

        Raises:
            ValueError: The result has no elements, too many, another type, or no batch axis.
        """
        values: list[Value] = []
        map_aggregate((args, kwargs), lambda a: values.append(a) if isinstance(a, Value) else None)
        sample: Tensor = _call(function, args, kwargs, lambda value: value.tensor.to("meta"))
        check_size(sample.shape)
        if all(value.constant for value in values):
            self._folded += sample.numel()
            check_size([self._folded])
            tensor: Tensor = _call(function, args, kwargs, lambda value: value.tensor)
            return Value(tensor, learned=any(value.learned for value in values))
        if sample.dtype != self.dtype:
            raise ValueError(f"its result is {sample.dtype}, but the input is {self.dtype}")
        if sample.ndim == 0 or sample.shape[0] != _BATCH:
            raise ValueError("its result has lost the batch axis")
        nodes = map_aggregate((args, kwargs), self._node)
        node = self._graph.call_function(function, *nodes)
        return Value(sample, node)

    def module(self, output: Value) -> fx.GraphModule:
        """End the graph with `output` and return the module, in evaluation mode."""
        self._graph.output(output.node)
        return fx.GraphModule(self._tensors, self._graph, "OnnxNetwork").eval()

    def _node(self, argument: Any) -> Any:
        if not isinstance(argument, Value):
            return argument
        if argument.node is not None:
            return argument.node
        if argument not in self._lifted:
            tensor = argument.tensor.contiguous()
            if tensor.is_floating_point() and tensor.dtype != self.dtype:
                raise ValueError(f"a constant is {tensor.dtype}, but the input is {self.dtype}")
            learned = argument.learned and tensor.is_floating_point()
            name = self._free_name(argument.name)
            self._tensors[name] = nn.Parameter(tensor) if learned else tensor
            self._lifted[argument] = self._graph.get_attr(name)
        return self._lifted[argument]

    def _free_name(self, wish: str) -> str:
        base = re.sub(r"\W", "_", wish, flags=re.ASCII)[:100] or "constant"
        base = base if base[0].isalpha() else f"p_{base}"
        # A module has names of its own (training, forward, ...), which a file must not take.
        taken = {*self._tensors, *dir(fx.GraphModule), "training", "_modules", "_buffers"}
        name, count = base, 0
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        return name


class Operation:
    """One ONNX node while it is translated; what a rule for an operator has in hand."""

    def __init__(
        self, graph: Graph, node: onnx.NodeProto, inputs: Sequence[Value | None], version: int
    ) -> None:
        from onnx.helper import get_attribute_value

        self.graph = graph
        self.version = version
        self.emit = graph.emit
        self._inputs = inputs
        self._attributes = {item.name: get_attribute_value(item) for item in node.attribute}

    def attribute(self, name: str, default: T) -> T:
        """Return an attribute of the type of `default`, which is what it is if not given."""
        value = self._attributes.pop(name, default)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(default):
            raise ValueError(f"attribute {name} is of the wrong type")
        return value

    def tensor_attribute(self, name: str) -> Tensor | None:
        """Return an attribute that is a tensor, or None if there is none of that name."""
        value = self._attributes.pop(name, None)
        return None if value is None else to_tensor(value)

    def has(self, name: str) -> bool:
        """Whether the node states this attribute."""
        return name in self._attributes

    def finish(self) -> None:
        """Refuse what no rule has asked for: an attribute that is ignored changes the function."""
        for name in self._attributes:
            raise ValueError(f"attribute {printable(name)} is not supported")

    def optional(self, index: int) -> Value | None:
        """Return an input, or None if it is left out."""
        return self._inputs[index] if index < len(self._inputs) else None

    def input(self, index: int = 0) -> Value:
        """Return an input that must be there."""
        value = self.optional(index)
        if value is None:
            raise ValueError(f"input {index} is missing")
        return value

    @property
    def inputs(self) -> list[Value]:
        """All inputs."""
        return [self.input(index) for index in range(len(self._inputs))]

    def constant(self, index: int) -> Tensor | None:
        """Return an optional input that has to be a constant."""
        value = self.optional(index)
        if value is None:
            return None
        if not value.constant:
            raise ValueError(f"input {index} depends on the network's input: not supported")
        return value.tensor

    def scalar(self, index: int) -> float | None:
        """Return an optional constant input of one element."""
        tensor = self.constant(index)
        if tensor is None:
            return None
        if tensor.numel() != 1:
            raise ValueError(f"input {index} has {tensor.numel()} elements, not one")
        number: float = tensor.item()
        return number

    def ints(self, name: str, index: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return whole numbers that are an attribute in early versions and an input in later."""
        tensor = self.constant(index)
        if tensor is None:
            return self.attribute(name, default)
        if tensor.ndim > 1 or tensor.is_floating_point():
            raise ValueError(f"input {index} ({name}) is not a list of whole numbers")
        return tuple(int(number) for number in tensor.reshape(-1).tolist())

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Bring `value` into `shape`, which is for a batch of 1."""
        if math.prod(shape) != math.prod(value.shape):
            raise ValueError(f"cannot bring {value.shape} into the shape {tuple(shape)}")
        if value.constant:
            return self.emit(torch.reshape, value, tuple(shape))
        if not shape or shape[0] != 1:
            raise ValueError(f"the shape {tuple(shape)} has no batch axis of size 1 in front")
        if tuple(shape) == value.shape:
            return value
        return self.emit(torch.reshape, value, (-1, *shape[1:]))


def check_size(shape: Sequence[int]) -> None:
    """Refuse shapes that no network of ours could hold."""
    if any(side < 1 for side in shape):
        raise ValueError(f"a tensor of shape {tuple(shape)} has no elements")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"a tensor of shape {tuple(shape)} is too large")


def axis_of(value: Value, axis: int) -> int:
    """Count `axis` from the front; for what depends on the input it must not be the batch's."""
    if not -value.rank <= axis < value.rank:
        raise ValueError(f"axis {axis} does not exist: the tensor has {value.rank} axes")
    axis %= value.rank
    if axis == 0 and not value.constant:
        raise ValueError("works along the batch axis, which would mix samples")
    return axis


def to_tensor(proto: onnx.TensorProto) -> Tensor:
    """Convert a tensor of the file.

    Raises:
        ModelError: It lies outside of the file, or is damaged, or is of no numeric type.
    """
    import numpy as np
    from onnx import TensorProto
    from onnx.numpy_helper import to_array

    name = printable(proto.name)
    if proto.data_location == TensorProto.EXTERNAL or proto.external_data:
        raise ModelError(f"tensor {name} lies in another file; save the model as one file")
    try:
        return torch.from_numpy(np.array(to_array(proto)))
    except (TypeError, ValueError, RuntimeError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError(f"tensor {name} is damaged or not of a numeric type") from error


def _call(
    function: Callable[..., Any], args: Any, kwargs: Any, tensor: Callable[[Value], Tensor]
) -> Any:
    real_args, real_kwargs = map_aggregate(
        (args, kwargs), lambda a: tensor(a) if isinstance(a, Value) else a
    )
    return function(*real_args, **real_kwargs)

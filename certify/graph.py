"""The form in which functions are bounded: a list of ATen calls with one output each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from certify.errors import UnsupportedError

Argument = Any
"""A number, dtype, None, `Ref`, `Size`, or a tuple of them."""


@dataclass(frozen=True)
class Ref:
    """The value of an earlier node."""

    index: int


@dataclass(frozen=True)
class Size:
    """A whole number that depends on the batch size: `slope * batch + offset`."""

    slope: int
    offset: int

    def __rmul__(self, factor: int) -> Size:
        """Return a multiple of it."""
        return Size(factor * self.slope, factor * self.offset)


@dataclass(frozen=True, eq=False)
class Node:
    """One call.

    Attributes:
        index: Its place in the graph.
        op: The ATen operator, or None for an input of the graph.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        inputs: Indices of the nodes among its arguments, in order.
        shape: Shape of its value at batch size 2.
        sizes: Its shape at any batch size.
        dtype: Type of its value's entries; None if it has several values.
        device: Where its value was when it was traced; None if it has several values.
        module: Path of the module whose forward made the call; empty for the model itself.
        name: Name of the graph's input, or of the operator.
    """

    index: int
    op: torch._ops.OpOverload[..., Any] | None
    args: tuple[Argument, ...]
    kwargs: Mapping[str, Argument]
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    sizes: tuple[int | Size, ...]
    dtype: torch.dtype | None
    device: torch.device | None
    module: str
    name: str

    @property
    def where(self) -> str:
        """What to call it in a message."""
        return f"{self.name} in {self.module or 'the model itself'}"

    def batch(self, shape: Sequence[int]) -> int:
        """Return the batch size at which its value has this shape; 1 if its shape is fixed."""
        for want, have in zip(self.sizes, shape, strict=True):
            if isinstance(want, Size):
                return (have - want.offset) // want.slope
        return 1

    def call(self, values: Callable[[int], Any], batch: int) -> tuple[list[Any], dict[str, Any]]:
        """Return its arguments with nodes and sizes filled in."""
        args = [resolve(argument, values, batch) for argument in self.args]
        return args, {key: resolve(value, values, batch) for key, value in self.kwargs.items()}


def resolve(argument: Argument, values: Callable[[int], Any], batch: int) -> Any:
    """Fill nodes and sizes into one argument."""
    if isinstance(argument, Ref):
        return values(argument.index)
    if isinstance(argument, Size):
        return argument.slope * batch + argument.offset
    if isinstance(argument, tuple):
        return [resolve(part, values, batch) for part in argument]
    return argument


def references(argument: Argument) -> Iterator[int]:
    """Yield the nodes in an argument."""
    if isinstance(argument, Ref):
        yield argument.index
    elif isinstance(argument, tuple):
        for part in argument:
            yield from references(part)


def has_size(argument: Argument) -> bool:
    """Whether anything in an argument depends on the batch size."""
    if isinstance(argument, tuple):
        return any(has_size(part) for part in argument)
    return isinstance(argument, Size)


@dataclass(frozen=True, eq=False)
class Graph:
    """A function of named tensors, traced.

    Attributes:
        nodes: Inputs first, then calls, each after what it needs.
        inputs: Node of each named input.
        output: Node of the result.
        batched: Inputs with one row a sample; what depends on them has so too.
        literals: Values of the nodes that are constants written in the function itself.
        apart: Nodes whose value holds the samples' shares one after the other, in its first
            dimension; a transposed batch does not, nor two batches joined in a row.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, int]
    output: int
    batched: frozenset[str]
    literals: Mapping[int, Tensor] = field(default_factory=dict)
    apart: frozenset[int] = frozenset()

    def run(self, values: Mapping[str, Tensor]) -> Tensor:
        """Evaluate it, call by call."""
        result: Tensor = self.evaluate(values)[self.output]
        return result

    def evaluate(self, values: Mapping[str, Tensor]) -> dict[int, Any]:
        """Return the value of every node."""
        (batch,) = {len(values[name]) for name in self.batched}
        found: dict[int, Any] = {self.inputs[name]: value for name, value in values.items()}
        found.update(self.literals)
        for node in self.nodes:
            if node.op is not None:
                args, kwargs = node.call(found.__getitem__, batch)
                found[node.index] = node.op(*args, **kwargs)
        return found


def unsupported(node: Node, why: str = "has no rule") -> UnsupportedError:
    """Return the error for an operation that cannot be bounded."""
    return UnsupportedError(
        f"cannot bound this model: {node.where} {why} (docs/operators.md lists what has one)"
    )

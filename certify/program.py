"""A graph with its parameters filled in: what is left depends on inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from certify.graph import Graph, Node, Size

T = TypeVar("T")


def at_batch(value: Any, node: Node, batch: int) -> Any:
    """Repeat a node's value, made at batch size 1, if its shape depends on the batch size."""
    if batch == 1 or not any(isinstance(size, Size) for size in node.sizes):
        return value
    times = [batch if isinstance(size, Size) else 1 for size in node.sizes]
    return (
        value.repeat(times) if isinstance(value, Tensor) else value.each(lambda v: v.repeat(times))
    )


@dataclass(eq=False)
class Program:
    """A function of its batched inputs.

    Attributes:
        graph: The traced function.
        nodes: The calls that depend on an input, in order.
        constants: Values of nodes that do not: parameters, and what follows from them alone.
        inputs: Node of each input that is left.
        cache: What rules derive from constants, by (node, what); empty while `frozen` is False.
        frozen: Whether constants stay as they are; False in training, where nothing is cached.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    constants: dict[int, Any]
    inputs: Mapping[str, int]
    frozen: bool = True
    cache: dict[tuple[int, str], Any] = field(default_factory=dict)

    @property
    def output(self) -> int:
        """Node of the result."""
        return self.graph.output

    @property
    def numbers(self) -> int:
        """Entries of all nodes' values, of one sample."""
        return max(1, sum(max(1, n.shape[0] // 2) * math.prod(n.shape[1:]) for n in self.nodes))

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        kinds = (v.dtype for v in self.constants.values() if isinstance(v, Tensor))
        return next((kind for kind in kinds if kind.is_floating_point), torch.float32)

    def constant(self, node: int, batch: int) -> Any:
        """Return a constant at a batch size: folding made it at batch size 1."""
        return at_batch(self.constants[node], self.graph.nodes[node], batch)

    def derived(self, node: int, what: str, make: Callable[[], T]) -> T:
        """Return what `make` gives, made once if constants stay as they are."""
        if not self.frozen:
            return make()
        key = (node, what)
        if key not in self.cache:
            self.cache[key] = make()
        value: T = self.cache[key]
        return value

    def apart(self, node: Node) -> bool:
        """Whether a call and all it takes hold samples one after the other: rows pass no other."""
        kept = self.graph.apart
        return node.index in kept and all(i in kept or i in self.constants for i in node.inputs)

    def shape(self, node: int) -> tuple[int, ...]:
        """Shape of one sample's share of a node's value, (1, ...) unless rows were merged."""
        return self.graph.nodes[node].shape[1:]

"""Filling a graph's parameters in."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

import certify.affine_ops
import certify.interval_ops  # noqa: F401  # registers the rules
from certify.affine_ops import rearrangement
from certify.graph import Graph, Node
from certify.interval import Interval
from certify.maps import MAPS
from certify.program import Program
from certify.propagate import Value, bound
from certify.rounding import OFF, Rounding


def bind(
    graph: Graph, values: Mapping[str, Value], *, frozen: bool = True, rounded: bool = True
) -> Program:
    """Return a graph's program for given parameters, which may be intervals.

    What follows from parameters alone is computed here: exactly where entries only move, else as
    an interval that allows for rounding.
    """
    constants: dict[int, Value] = {graph.inputs[name]: value for name, value in values.items()}
    inputs = {name: index for name, index in graph.inputs.items() if name not in values}
    program = Program(graph, (), constants, inputs, frozen)
    rounding = Rounding.of(program.dtype) if rounded else OFF
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op is not None and all(index in constants for index in node.inputs):
            constants[node.index] = _folded(program, node, rounding)
        elif node.op is not None:
            nodes.append(node)
    program.nodes = tuple(nodes)
    program.cache.clear()
    return program


def bind_model(model: nn.Module, graph: Graph) -> Program:
    """Return a traced model's program with the model's own weights."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return bind(graph, {name: value.detach() for name, value in state.items()})


def _folded(program: Program, node: Node, rounding: Rounding) -> Value:
    plain = all(isinstance(program.constants[i], Tensor) for i in node.inputs)
    exact = (plain and MAPS.get(node.op) is rearrangement) or not node.inputs
    if exact:
        args, kwargs = node.call(program.constants.__getitem__, 1)
        result: Tensor = node.op(*args, **kwargs)  # type: ignore[misc]  # a call, no input
        return result
    ends = {i: program.constants.pop(i) for i in set(node.inputs)}
    try:
        lifted = {
            i: v if isinstance(v, Interval) or not v.is_floating_point() else Interval.point(v)
            for i, v in ends.items()
        }
        return bound(program, node, lifted, rounding, 1)
    finally:
        program.constants.update(ends)
        program.cache.clear()

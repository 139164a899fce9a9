"""Filling a graph's parameters in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import certify.affine_moves
import certify.affine_ops
import certify.interval_arithmetic
import certify.interval_norms
import certify.interval_softmax
import certify.interval_unary
import certify.interval_windows
import certify.pool_gradient
import certify.slope_curves  # noqa: F401  # registers the rules
from certify.affine_moves import MOVES
from certify.folding import fold
from certify.graph import Graph, Node, has_size, unsupported
from certify.interval import Interval
from certify.program import Program, at_batch
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
    constants.update(graph.literals)
    inputs = {name: index for name, index in graph.inputs.items() if name not in values}
    program = Program(graph, (), constants, inputs, frozen)
    rounding = Rounding.of(program.dtype) if rounded else OFF
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op is not None and all(index in constants for index in node.inputs):
            _check_rows(program, node)
            constants[node.index] = _folded(program, node, rounding)
        elif node.op is not None:
            nodes.append(node)
    program.nodes = tuple(nodes)
    program.cache.clear()
    if frozen:
        fold(program)
    return program


def bind_model(model: nn.Module, graph: Graph) -> Program:
    """Return a traced model's program with the model's own weights."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return bind(graph, {name: value.detach() for name, value in state.items()})


def _check_rows(program: Program, node: Node) -> None:
    """Raise unless a constant at batch size 2 is the one at 1 repeated: `at_batch` relies on it."""
    sizes = [program.graph.nodes[i].sizes for i in node.inputs]
    if not has_size((node.args, *node.kwargs.values(), *sizes)):
        return

    def made(batch: int) -> Tensor:
        def point(index: int) -> Any:
            value = program.constant(index, batch)
            return value.center if isinstance(value, Interval) else value

        args, kwargs = node.call(point, batch)
        result: Tensor = node.op(*args, **kwargs)  # type: ignore[misc]  # a call, no input
        return result

    one, two = at_batch(made(1), node, 2), made(2)
    same = partial(torch.allclose, rtol=1e-6, atol=0, equal_nan=True)  # small numbers count too
    if one.shape != two.shape or not same(one.double(), two.double()):
        raise unsupported(node, "makes numbers that depend on the place in the batch")


def _folded(program: Program, node: Node, rounding: Rounding) -> Value:
    ends = {i: program.constants[i] for i in node.inputs}
    plain = all(isinstance(v, Tensor) for v in ends.values())
    entire = node.dtype is not None and not node.dtype.is_floating_point
    # no rounding: entries moved, numbers written in the code, whole numbers and comparisons
    if plain and (not ends or node.op in MOVES or entire):
        args, kwargs = node.call(program.constants.__getitem__, 1)
        result: Tensor = node.op(*args, **kwargs)  # type: ignore[misc]  # a call, no input
        return result
    for index in ends:
        del program.constants[index]
    try:
        lifted: dict[int, Value] = {
            i: v if isinstance(v, Interval) else Interval.point(v.to(program.dtype))
            for i, v in ends.items()
            if isinstance(v, Interval) or v.dtype is not torch.bool
        }
        program.constants.update({i: v for i, v in ends.items() if i not in lifted})
        return bound(program, node, lifted, rounding, 1)
    finally:
        program.constants.update(ends)
        program.cache.clear()

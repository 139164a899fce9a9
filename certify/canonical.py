"""Calls with several results, and calls that compute nothing, rewritten to one result a call."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from certify.graph import Argument, Graph, Node, Ref, references, unsupported

aten = torch.ops.aten

_IDENTITIES = {
    aten.detach.default,
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
    aten.native_dropout.default,
}


def _batch_norm(a: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]] | None:
    x, weight, bias, mean, var, training, momentum, eps = a
    if training:
        return None
    return aten.batch_norm.default, (x, weight, bias, mean, var, False, momentum, eps, False)


def _inference_batch_norm(a: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    x, weight, bias, mean, var, momentum, eps = a
    return aten.batch_norm.default, (x, weight, bias, mean, var, False, momentum, eps, False)


_RENAMED: dict[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}
"""What fails on other strides than those of the trace, and what does not."""

_FIRST_RESULT: dict[Any, Callable[[tuple[Any, ...]], tuple[Any, tuple[Any, ...]] | None]] = {
    aten.native_batch_norm.default: _batch_norm,
    aten._native_batch_norm_legit_no_training.default: _inference_batch_norm,
    aten.cudnn_batch_norm.default: _batch_norm,
    aten.native_layer_norm.default: lambda a: (aten.layer_norm.default, a),
    aten.native_group_norm.default: lambda a: (
        aten.group_norm.default,
        (a[0], a[6], a[1], a[2], a[7]),
    ),
    aten.max_pool2d_with_indices.default: lambda a: (aten.max_pool2d.default, a),
}
"""Calls of whose results the first alone is a value; the rest serve training."""


def canonical(graph: Graph) -> Graph:
    """Return the same function with one result a call, and nothing in it that is not used.

    Raises:
        UnsupportedError: Batch norm in training mode, or a result that serves training only.
    """
    nodes: dict[int, Node] = {}
    same: dict[int, int] = {}

    def moved(argument: Argument) -> Argument:
        if isinstance(argument, Ref):
            return Ref(same.get(argument.index, argument.index))
        if isinstance(argument, tuple):
            return tuple(moved(part) for part in argument)
        return argument

    for node in graph.nodes:
        args = moved(node.args)
        node = replace(
            node, args=args, inputs=tuple(references((args, tuple(node.kwargs.values()))))
        )
        if node.op in _IDENTITIES:
            same[node.index] = node.inputs[0]
        elif node.op is operator.getitem:
            source, position = nodes[node.inputs[0]], node.args[1]
            op, args = _taken(source, position, node)
            node = replace(
                node, op=op, args=args, inputs=tuple(references(args)), module=source.module
            )
            nodes[node.index] = replace(node, name=str(op))
        else:
            nodes[node.index] = replace(node, op=_RENAMED.get(node.op, node.op))
    return _pruned(nodes, same.get(graph.output, graph.output), graph)


def _taken(source: Node, position: int, node: Node) -> tuple[Any, tuple[Any, ...]]:
    """The call that gives one result of a call with several."""
    if source.op in _FIRST_RESULT:
        made = _FIRST_RESULT[source.op](source.args) if position == 0 else None
        if made is None:
            raise unsupported(source, "is in training mode: call model.eval()")
        return made
    if source.op is aten.split.Tensor:
        size, dim = source.args[1], source.args[2] if len(source.args) > 2 else 0
        return aten.slice.Tensor, (source.args[0], dim, position * size, (position + 1) * size)
    if source.op is aten.split_with_sizes.default:
        sizes, dim = source.args[1], source.args[2] if len(source.args) > 2 else 0
        start = sum(sizes[:position])
        return aten.slice.Tensor, (source.args[0], dim, start, start + sizes[position])
    if source.op is aten.unbind.int:
        dim = source.args[1] if len(source.args) > 1 else 0
        return aten.select.int, (source.args[0], dim, position)
    raise unsupported(source)


def _pruned(nodes: dict[int, Node], output: int, graph: Graph) -> Graph:
    """Drop what the output does not need, and number the rest anew. Inputs all stay."""
    needed, stack = set(graph.inputs.values()), [output]
    while stack:
        index = stack.pop()
        if index not in needed or index == output:
            needed.add(index)
            stack += [i for i in nodes[index].inputs if i not in needed]
    place = {index: new for new, index in enumerate(sorted(needed))}

    def moved(argument: Argument) -> Argument:
        if isinstance(argument, Ref):
            return Ref(place[argument.index])
        if isinstance(argument, tuple):
            return tuple(moved(part) for part in argument)
        return argument

    kept = [
        replace(
            nodes[index],
            index=place[index],
            args=moved(nodes[index].args),
            inputs=tuple(place[i] for i in nodes[index].inputs),
        )
        for index in sorted(needed)
    ]
    inputs = {name: place[index] for name, index in graph.inputs.items()}
    return Graph(tuple(kept), inputs, place[output], graph.batched)

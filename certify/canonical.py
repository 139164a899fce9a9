"""Calls with several results, and calls that compute nothing, rewritten to one result a call."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from certify.backward import FIRST, REWRITES, Writer
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
    aten.fill.Tensor: aten.full_like.default,
    aten.fill.Scalar: aten.full_like.default,
    aten.square.default: aten.pow.Tensor_Scalar,
    aten.div.Scalar: aten.div.Tensor,
    aten.elu_.default: aten.elu.default,
}
"""What fails on other strides than those of the trace, and what does not; and other aliases."""

_SOFTMAX = {
    aten._softmax.default: aten.softmax.int,
    aten._safe_softmax.default: aten.softmax.int,
    aten._log_softmax.default: aten.log_softmax.int,
}
"""With the dimension as the one argument."""

_CREATED: dict[Any, float | None] = {
    aten.ones_like.default: 1.0,
    aten.new_ones.default: 1.0,
    aten.zeros_like.default: 0.0,
    aten.new_zeros.default: 0.0,
    aten.full_like.default: None,
    aten.new_full.default: None,
}
"""What is made in the likeness of another tensor, whose values do not count; None: as it says."""

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
    aten.max_pool3d_with_indices.default: lambda a: (aten.max_pool3d.default, a),
    aten.adaptive_max_pool2d.default: lambda a: (functional.adaptive_max_pool2d, a),
    aten.adaptive_max_pool3d.default: lambda a: (functional.adaptive_max_pool3d, a),
    aten.log_sigmoid_forward.default: lambda a: (aten.log_sigmoid.default, a),
    aten.max.dim: lambda a: (aten.amax.default, a),
    aten.min.dim: lambda a: (aten.amin.default, a),
    aten.var_mean.correction: lambda a: (aten.var.correction, a),
}
"""Calls of whose results the first alone is a value; the rest serve training."""


def canonical(graph: Graph) -> Graph:
    """Return the same function with one result a call, and nothing in it that is not used.

    Raises:
        UnsupportedError: Batch norm in training mode, or a result that serves training only.
    """
    written = Writer()
    place: dict[int, int] = {}

    def moved(argument: Argument) -> Argument:
        if isinstance(argument, Ref):
            return Ref(place[argument.index])
        if isinstance(argument, tuple):
            return tuple(moved(part) for part in argument)
        return argument

    for node in graph.nodes:
        args = moved(node.args)
        kwargs = {key: moved(value) for key, value in node.kwargs.items()}
        new = _named(replace(node, args=args, kwargs=kwargs))
        new = replace(new, inputs=tuple(references((new.args, tuple(new.kwargs.values())))))
        place[node.index] = _written(new, written)
    inputs = {name: place[index] for name, index in graph.inputs.items()}
    literals = {place[index]: value for index, value in graph.literals.items()}
    return _pruned(
        written.nodes, replace(graph, inputs=inputs, output=place[graph.output], literals=literals)
    )


def _written(node: Node, to: Writer) -> int:
    """Write a call under its one name, and return where its value is."""
    if node.op in _IDENTITIES:
        return node.inputs[0]
    if (back := _undone(node, to.nodes)) is not None:
        return back
    if (rewrite := REWRITES.get(node.op)) is not None:
        found = rewrite(to, node)
        if found is not None:
            return found.index
    if node.op is operator.getitem:
        source, position = to.nodes[node.inputs[0]], node.args[1]
        if source.op in FIRST and position == 0:
            return FIRST[source.op](to, source, node).index
        if position and (source.op in FIRST or source.op in _FIRST_RESULT):
            return to.add(node)  # what backward calls take along and we do not need
        op, args = _taken(source, position, node)
        node = replace(node, op=op, args=args, module=source.module, name=source.name)
    return to.add(node)


def _named(node: Node) -> Node:
    """The call under the one name that we know it by: nothing is done in place."""
    op = node.op
    name = getattr(op, "_schema", None) and op._schema.name  # type: ignore[union-attr]  # a call
    if name and name.endswith("_") and not name.endswith("__"):
        packet = getattr(aten, name.removeprefix("aten::").removesuffix("_"), None)
        op = getattr(packet, op._overloadname, op)  # type: ignore[union-attr]  # as above
    op = _RENAMED.get(op, op)
    if op is aten.pow.Tensor_Scalar and len(node.args) == 1:
        return replace(node, op=op, args=(node.args[0], 2))
    if op is aten.fill.Scalar or op is aten.full_like.default or op is aten.new_full.default:
        return _filled(node, node.args[-1])
    if op in _SOFTMAX:
        return replace(node, op=_SOFTMAX[op], args=node.args[:2])
    if op in _CREATED:
        return _filled(node, _CREATED[op])
    return replace(node, op=op)


def _filled(node: Node, value: Argument) -> Node:
    kwargs = {"dtype": node.dtype, "device": node.device}
    if isinstance(value, Ref):
        return replace(node, op=aten.expand.default, args=(value, node.sizes), kwargs={})
    return replace(node, op=aten.full.default, args=(node.sizes, value), kwargs=kwargs)


def _undone(node: Node, nodes: list[Node]) -> int | None:
    """What a call that undoes the one before it gives back."""
    source = nodes[node.inputs[0]] if node.inputs else None
    if node.op is aten.t.default and source is not None and source.op is node.op:
        return source.inputs[0]
    if node.op is aten.transpose.int and source is not None and source.op is node.op:
        rank = len(node.shape)
        here, there = ({d % rank for d in n.args[1:]} for n in (node, source))
        return source.inputs[0] if here == there else None
    if node.op is aten.expand.default and source is not None and source.sizes == node.sizes:
        return source.index
    if node.op is aten.reshape.default and source is not None and source.sizes == node.sizes:
        return source.index
    return None


def _taken(source: Node, position: int, node: Node) -> tuple[Any, tuple[Any, ...]]:
    """The call that gives one result of a call with several."""
    if source.op in _FIRST_RESULT:
        made = _FIRST_RESULT[source.op](source.args)
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


def _pruned(nodes: list[Node], graph: Graph) -> Graph:
    """Drop what the output does not need, and number the rest anew. Inputs all stay."""
    needed, stack = set(graph.inputs.values()), [graph.output]
    while stack:
        index = stack.pop()
        if index not in needed or index == graph.output:
            needed.add(index)
            stack += [i for i in nodes[index].inputs if i not in needed]
        if nodes[index].op is operator.getitem:
            raise unsupported(nodes[nodes[index].inputs[0]], "gives a result that has no rule")
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
            kwargs={key: moved(value) for key, value in nodes[index].kwargs.items()},
            inputs=tuple(place[i] for i in nodes[index].inputs),
        )
        for index in sorted(needed)
    ]
    inputs = {name: place[index] for name, index in graph.inputs.items()}
    literals = {place[i]: value for i, value in graph.literals.items() if i in place}
    return Graph(tuple(kept), inputs, place[graph.output], graph.batched, literals)

"""From a function of tensors to its graph: `make_fx`, run at two batch sizes and checked.

`make_fx` writes the batch size into every `view`. So a function is traced twice, at batch sizes 2
and 3: whole numbers that differ are linear in the batch size, and the graph then serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from certify.canonical import canonical
from certify.errors import UnsupportedError
from certify.graph import Argument, Graph, Node, Ref, Size, has_size, references
from certify.marks import Marks, refuse_hidden
from certify.plain import Plain

_BATCHES = (2, 3)
_REPLAYED, _MARKED = 5, 3


def trace_model(model: nn.Module, sample: Tensor) -> Graph:
    """Trace a model's logits as a function of its parameters, its buffers and its input.

    Args:
        model: In eval mode.
        sample: Inputs (n, *shape), n >= 1: shape, dtype and device count, and a check's values.

    Returns:
        The graph; its inputs are `x` and the model's parameters and buffers by name.

    Raises:
        UnsupportedError: The model cannot be traced, or its graph is not the model.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {name: value.detach() for name, value in state.items()}

    def logits(values: dict[str, Tensor]) -> Tensor:
        result: Tensor = functional_call(
            model, {name: values[name] for name in state}, (values["x"],)
        )
        return result

    with module_paths(model):
        return trace(logits, {**state, "x": sample}, frozenset({"x"}))


def trace(
    function: Callable[[dict[str, Tensor]], Tensor],
    values: Mapping[str, Tensor],
    batched: frozenset[str],
) -> Graph:
    """Trace a function of named tensors.

    Args:
        function: Pure, row by row in its batched inputs.
        values: An example of each input.
        batched: Inputs whose first dimension is the batch; the result has it too.

    Raises:
        UnsupportedError: The function cannot be traced, holds a tensor that is no input, mixes
            rows, or its graph does not give its values.
    """
    first, second = (_make(function, _rows(values, batched, size)) for size in _BATCHES)
    graph = canonical(_unify(first, second, tuple(values), batched))
    # numbers that a forward assigns, as in y[:, 0] = 0.5, are traced on the CPU
    here = values[min(batched)].device
    graph = replace(graph, literals={i: value.to(here) for i, value in graph.literals.items()})
    return replace(graph, apart=_replay(graph, function, values, batched))


def _rows(values: Mapping[str, Tensor], batched: frozenset[str], size: int) -> dict[str, Tensor]:
    """The example with its batched inputs repeated to `size` rows."""
    return {
        name: value[torch.arange(size, device=value.device) % len(value)]
        if name in batched
        else value
        for name, value in values.items()
    }


def _make(
    function: Callable[[dict[str, Tensor]], Tensor], values: dict[str, Tensor]
) -> fx.GraphModule:
    try:
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            Plain(),
            traceback.preserve_node_meta(),
        ):
            # a write into a view (y[:, 0] = 0) becomes a value of its own
            traced = make_fx(functionalize(function, remove="mutations"))(dict(values))
    except Exception as error:  # whatever the user's forward may raise
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedError(
            f"cannot trace this model: {reason} (Python control flow must not depend on the data)"
        ) from error
    traced.graph.eliminate_dead_code()
    return traced


@contextmanager
def module_paths(model: nn.Module) -> Iterator[None]:
    """While it holds, nodes of a trace know the path of the module they come from."""
    stack = [""]

    def settle() -> None:
        traceback.current_meta["nn_module_stack"] = {"path": (stack[-1], nn.Module)}

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            stack.append(name)
            settle()

        return hook

    def leave(*_: Any) -> None:
        stack.pop()
        settle()

    handles: list[Any] = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _unify(
    first: fx.GraphModule, second: fx.GraphModule, names: tuple[str, ...], batched: frozenset[str]
) -> Graph:
    """One graph from the traces at both batch sizes."""
    nodes: list[Node] = []
    place: dict[fx.Node, int] = {}
    inputs: dict[str, int] = {}
    literals: dict[int, Tensor] = {}
    lists = list(first.graph.nodes), list(second.graph.nodes)
    if len(lists[0]) != len(lists[1]):
        raise UnsupportedError(
            "cannot bound this model: what it computes depends on the batch size"
        )
    waiting = list(names)
    output = -1
    for a, b in zip(*lists, strict=True):
        path = a.meta.get("nn_module_stack", {}).get("path", ("",))[0]
        if a.op == "placeholder":
            place[a] = inputs[waiting.pop(0)] = len(nodes)
            nodes.append(_node(None, (), {}, a, b, nodes, names[len(inputs) - 1]))
        elif a.op == "output":
            results = a.args[0] if isinstance(a.args[0], list | tuple) else (a.args[0],)
            if len(results) != 1 or not isinstance(results[0], fx.Node):
                raise UnsupportedError("cannot bound this model: it has to return one tensor")
            output = place[results[0]]
        elif a.op == "call_function":
            if a.target != b.target:
                raise UnsupportedError(
                    f"cannot bound this model: in {path or 'the model itself'} it calls "
                    f"{a.target} or {b.target}, depending on the batch size"
                )
            if torch.Tag.nondeterministic_seeded in getattr(a.target, "tags", ()):
                raise UnsupportedError(
                    f"cannot bound this model: {a.target} in {path or 'the model itself'} draws "
                    "random numbers: call model.eval()"
                )
            args = tuple(_argument(x, y, place) for x, y in zip(a.args, b.args, strict=True))
            kwargs = {key: _argument(a.kwargs[key], b.kwargs[key], place) for key in a.kwargs}
            place[a] = len(nodes)
            nodes.append(_node(a.target, args, kwargs, a, b, nodes, str(a.target)))
        else:
            place[a] = len(nodes)
            literals[len(nodes)] = _literal(a, b, getattr(first, str(a.target)), second, path)
            nodes.append(_node(None, (), {}, a, b, nodes, "a constant"))
    return Graph(tuple(nodes), inputs, output, batched, literals)


def _literal(a: fx.Node, b: fx.Node, value: Tensor, second: fx.GraphModule, path: str) -> Tensor:
    """The value of `torch.tensor([0, 3])` in a forward; a tensor from elsewhere is an error."""
    where = path or "the model itself"
    if any(user.target is not torch.ops.aten.lift_fresh_copy.default for user in a.users):
        raise UnsupportedError(
            f"cannot bound this model: {where} uses a tensor that is neither a parameter nor a "
            "buffer: register it as a buffer"
        )
    if not torch.equal(value, getattr(second, str(b.target))):
        raise UnsupportedError(
            f"cannot bound this model: a constant in {where} depends on the batch size"
        )
    return value


def _node(
    op: Any,
    args: tuple[Argument, ...],
    kwargs: dict[str, Argument],
    a: fx.Node,
    b: fx.Node,
    nodes: list[Node],
    name: str,
) -> Node:
    path = a.meta.get("nn_module_stack", {}).get("path", ("",))[0]
    values = a.meta.get("val"), b.meta.get("val")
    shapes = [tuple(v.shape) if isinstance(v, Tensor) else () for v in values]
    if len(shapes[0]) != len(shapes[1]):
        raise UnsupportedError(
            "cannot bound this model: what it computes depends on the batch size"
        )
    sizes = tuple(_argument(x, y, {}) for x, y in zip(*shapes, strict=True))
    kind = values[0].dtype if isinstance(values[0], Tensor) else None
    device = values[0].device if isinstance(values[0], Tensor) else None
    inputs = tuple(references((args, tuple(kwargs.values()))))
    shape = shapes[0]
    return Node(len(nodes), op, args, kwargs, inputs, shape, sizes, kind, device, path, name)


def _argument(a: Any, b: Any, place: dict[fx.Node, int]) -> Argument:
    if isinstance(a, fx.Node):
        return Ref(place[a])
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            raise UnsupportedError(
                "cannot bound this model: what it computes depends on the batch size"
            )
        return tuple(_argument(x, y, place) for x, y in zip(a, b, strict=True))
    if isinstance(a, int) and not isinstance(a, bool) and a != b:
        slope = (b - a) // (_BATCHES[1] - _BATCHES[0])
        return Size(slope, a - slope * _BATCHES[0])
    if isinstance(a, float) and a != b:
        raise UnsupportedError("cannot bound this model: a number in it depends on the batch size")
    return a


def _replay(
    graph: Graph,
    function: Callable[[dict[str, Tensor]], Tensor],
    values: Mapping[str, Tensor],
    batched: frozenset[str],
) -> frozenset[int]:
    """Check that the graph gives the function's values, at another batch size, row by row.

    Returns:
        The nodes that hold samples one after the other.
    """
    fresh = dict(values)
    for name in batched:
        rows = values[name][torch.arange(_REPLAYED, device=values[name].device) % len(values[name])]
        if rows.is_floating_point():
            noise = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0))
            rows = rows + (noise.to(rows) - 0.5) * (rows.abs().amax() + 1) * 0.1
        fresh[name] = rows
    each = [
        {name: v[i : i + 1] if name in batched else v for name, v in fresh.items()}
        for i in range(_REPLAYED)
    ]
    few = {name: v[:_MARKED] if name in batched else v for name, v in fresh.items()}
    refuse_hidden(graph, fresh, _MARKED)
    with torch.no_grad():  # on copies: a first layer may work in place
        eager, *alone = (
            function({name: v.clone() for name, v in some.items()}) for some in (fresh, *each)
        )
        whole, *parts = (graph.evaluate(some) for some in (fresh, *each))
        # at two batch sizes: rows may be told apart at one by chance
        marks = [Marks(graph, fresh, whole), Marks(graph, few, graph.evaluate(few))]
    if not _same(whole[graph.output], eager):
        raise UnsupportedError("cannot bound this model: its graph does not give its values")
    if not _same(torch.cat(alone), eager) or not _own(marks, graph.output):
        raise UnsupportedError("cannot bound this model: a sample's output depends on the others")
    return _apart(graph, whole, parts, marks) | {graph.output}


def _own(marks: Sequence[Marks], node: int) -> bool:
    return all(each.own(node) for each in marks)


def _same(found: Tensor, wanted: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether two values of one thing are equal but for rounding; NaN is equal to NaN."""
    if found.shape != wanted.shape:
        return False
    size = float(wanted.double().abs().nan_to_num(0, 0, 0).amax()) if wanted.numel() else 0.0
    return torch.allclose(
        found.double(), wanted.double(), rtol=0, atol=tolerance * (1 + size), equal_nan=True
    )


def _apart(
    graph: Graph,
    whole: Mapping[int, Any],
    parts: Sequence[Mapping[int, Any]],
    marks: Sequence[Marks],
) -> frozenset[int]:
    """Find the nodes whose whole value is those of the samples alone, one after the other.

    Where all samples alone have one value, comparing tells nothing: what a call takes decides.
    """
    found = {graph.inputs[name] for name in graph.batched}
    mixed = set(found)
    for node in graph.nodes:
        sources = mixed.intersection(node.inputs)
        if sources:
            mixed.add(node.index)
        first = node.sizes[:1]
        if (
            not _own(marks, node.index)
            or node.dtype is None
            or not has_size(first)
            or has_size(node.sizes[1:])
        ):
            continue
        if any(isinstance(size, Size) and size.offset for size in first):
            continue
        alone = torch.stack([part[node.index].flatten() for part in parts])
        if not bool((alone[1:] != alone[:1]).any()) and not sources <= found:
            continue
        if _same(whole[node.index].reshape(alone.shape), alone, 1e-4):
            found.add(node.index)
    return frozenset(found)

"""Networks out of ONNX files, as torch modules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from robustbench_c.errors import ModelError, did_you_mean
from robustbench_c.foreign.onnx_graph import Graph, Operation, Value, to_tensor
from robustbench_c.foreign.onnx_ops import RULES
from robustbench_c.foreign.reading import printable, read_limited

if TYPE_CHECKING:
    import onnx

_MOST_BYTES = 1 << 30
_MOST_NODES = 50_000
_OLDEST_OPSET = 7  # broadcasting was another before
_DOMAINS = ("", "ai.onnx")
_DTYPES = {1: torch.float32, 11: torch.float64}  # of TensorProto.DataType


class OnnxModel(nn.Module):
    """A network that was read from an ONNX file.

    Attributes:
        network: The operations; `print(model.network.code)` shows them. Initializers of the file
            are its parameters, batch statistics and other constants its buffers.
        input_shape: Of one sample, without the batch axis.
        dtype: Of the input and of all weights.
        classes: Number of outputs of one sample.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        input_shape: tuple[int, ...],
        dtype: torch.dtype,
        classes: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.input_shape = input_shape
        self.dtype = dtype
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, *input_shape) to (n, classes)."""
        y: Tensor = self.network(x)
        return y


def load_onnx(path: Path) -> OnnxModel:
    """Read a network of one input and one output.

    The file states the function of one sample: its first axis is the batch and has size 1 or none
    that is fixed. What is returned computes that function for each sample of a batch of any size.
    Outputs of more than one axis are flattened, as VNN-LIB counts them.

    Args:
        path: An `.onnx` file, or `.onnx.gz`. It is not trusted: nothing in it is run, it cannot
            name other files, and its size is limited.

    Returns:
        The module on the CPU, in evaluation mode.

    Raises:
        ModelError: The file is damaged, or states what is not supported; names the node.
    """
    path = Path(path)
    model = _parse(path)
    try:
        return _translate(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _parse(path: Path) -> onnx.ModelProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ModelError(
            f"{path}: reading ONNX needs the package onnx; pip install 'robustbench-c[onnx]'"
        ) from error
    content = read_limited(path, _MOST_BYTES, ModelError)
    try:
        return onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file, or damaged") from error


def _translate(model: onnx.ModelProto) -> OnnxModel:
    graph = model.graph
    if len(graph.node) > _MOST_NODES:
        raise ModelError(f"{len(graph.node)} nodes; at most {_MOST_NODES} are read")
    if graph.sparse_initializer:
        raise ModelError("sparse initializers are not supported; save them dense")
    if any(function.domain in _DOMAINS for function in model.functions):
        raise ModelError("defines operators of ONNX's own domain anew, which is not supported")
    version = _opset(model)
    nodes = _needed(graph)
    _check_operators(nodes)
    constants = {item.name: to_tensor(item) for item in graph.initializer}
    _check(model)
    name, shape, dtype = _input(graph)
    build = Graph(shape, dtype)
    values = {name: Value(tensor, learned=True, name=name) for name, tensor in constants.items()}
    values[name] = build.input
    for node in nodes:
        values[node.output[0]] = _apply(build, node, values, version)
    output = values.get(graph.output[0].name)
    if output is None or output.constant:
        raise ModelError("the output does not depend on the input")
    if output.rank != 2:
        output = build.emit(torch.reshape, output, (-1, math.prod(output.shape)))
    return OnnxModel(build.module(output), shape, dtype, output.shape[1]).eval()


def _apply(graph: Graph, node: onnx.NodeProto, values: dict[str, Value], version: int) -> Value:
    missing = [name for name in node.input if name and name not in values]
    try:
        if missing:
            raise ValueError(f"its input {printable(missing[0])} is no first output of a node")
        inputs = [values[name] if name else None for name in node.input]
        operation = Operation(graph, node, inputs, version)
        result = RULES[node.op_type](operation)
        operation.finish()
    except (
        ModelError,
        ValueError,
        RuntimeError,
        TypeError,
        IndexError,
        ArithmeticError,
        MemoryError,
    ) as error:  # torch's own, too, where shapes do not fit together
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{_place(node)}: {reason[:300]}") from error
    return result


def _opset(model: onnx.ModelProto) -> int:
    from onnx.defs import onnx_opset_version

    versions = [entry.version for entry in model.opset_import if entry.domain in _DOMAINS]
    newest = onnx_opset_version()
    if len(versions) != 1 or not _OLDEST_OPSET <= versions[0] <= newest:
        stated = versions[0] if versions else "none"
        raise ModelError(f"operator set {stated}; read are {_OLDEST_OPSET} to {newest}")
    return int(versions[0])


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that the one output depends on, in the file's order."""
    if len(graph.output) != 1:
        raise ModelError(f"{len(graph.output)} outputs; only networks of one are supported")
    wanted = {graph.output[0].name}
    nodes = []
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output if name):
            nodes.append(node)
            wanted.update(node.input)
    return nodes[::-1]


def _check_operators(nodes: list[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.domain not in _DOMAINS:
            raise ModelError(f"{_place(node)}: the domain {printable(node.domain)} is not known")
        if node.op_type not in RULES:
            hint = did_you_mean(node.op_type, list(RULES))
            raise ModelError(f"{_place(node)}: this operator is not supported; {hint}")


def _check(model: onnx.ModelProto) -> None:
    """Let onnx check the form: arities, types of attributes, order of nodes."""
    from onnx.checker import ValidationError, check_model

    try:
        check_model(model)
    except (ValidationError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"not valid ONNX: {reason[:300]}") from error


def _input(graph: onnx.GraphProto) -> tuple[str, tuple[int, ...], torch.dtype]:
    constants = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    if len(inputs) != 1:
        raise ModelError(f"{len(inputs)} inputs; only networks of one are supported")
    name, kind = inputs[0].name, inputs[0].type.tensor_type
    if kind.elem_type not in _DTYPES:
        raise ModelError(f"input {printable(name)} is neither float32 nor float64")
    sides = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
    if len(sides) < 2 or sides[0] not in (1, None):
        raise ModelError(
            f"input {printable(name)} has shape {sides}; needed is a batch axis of size 1 in front"
        )
    shape = tuple(side or 0 for side in sides[1:])
    if min(shape) < 1:
        raise ModelError(
            f"input {printable(name)} has shape {sides}: all axes but the first need a fixed size"
        )
    if math.prod(shape) > 1 << 28:
        raise ModelError(f"input {printable(name)} of shape {sides} is too large")
    return name, shape, _DTYPES[kind.elem_type]


def _place(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"node {printable(name)} ({printable(node.op_type)[1:-1]})"

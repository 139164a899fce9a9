"""Parsers of models: cards, safetensors (packed or not), checkpoints of torch, ONNX networks."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import safetensors.torch
import torch
from hypothesis import strategies as st
from mutations import Drawn, as_json, of_bytes, of_json, of_member
from onnx import TensorProto, helper, numpy_helper

from robustbench_c import zoo
from robustbench_c.foreign import load_onnx
from robustbench_c.training.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from robustbench_c.zoo.cards import Draft, read_card
from robustbench_c.zoo.packed import pack

Target = tuple[Drawn, Callable[[bytes], object]]
_MLP: dict[str, Any] = {"arch": "mlp", "input_shape": (4,), "n_classes": 2}


def targets(folder: Path) -> dict[str, Target]:
    """By its name, each parser's inputs and the parser."""
    model = zoo.build("mlp", (4,), 2, widths=[8])
    draft = Draft(
        name="net", architecture="mlp", arguments={"widths": (8,)}, input_shape=(4,),
        classes=("a", "b"), licence="MIT",
    )  # fmt: skip
    zoo.save(model, draft, folder)
    card = json.loads((folder / "net.json").read_text())
    tensors = {key: value.detach().clone() for key, value in model.state_dict().items()}
    weight = torch.zeros(8, 4)
    weight[1, 2] = weight[5, 0] = 0.5
    thin = tensors | {"1.weight": weight}
    dense, packed = (safetensors.torch.save(each) for each in (tensors, pack(thin)))
    nested = {"state_dict": {f"module.{key}": value for key, value in tensors.items()}}
    return {
        "card": (as_json([card]), _in_file(folder / "card.json", read_card)),
        "model with card": (
            as_json([card]),
            _in_file(folder / "net.json", lambda _: zoo.load(str(folder / "net.safetensors"))),
        ),
        "safetensors": (
            st.one_of(of_bytes([dense, packed]), _headers(dense), _headers(packed)),
            _in_file(folder / "own.safetensors", _load),
        ),
        "torch checkpoint": (
            st.one_of(
                of_bytes([_saved(tensors), _saved(nested, False), pickle.dumps(nested, 2)]),
                of_member(_saved(nested), "archive/data.pkl"),
            ),
            _in_file(folder / "own.pt", _load),
        ),
        "training checkpoint": (
            of_member(_begun(folder, tensors), "archive/data.pkl"),
            _in_file(
                folder / CHECKPOINT,
                lambda path: load_checkpoint(path.parent, {}, torch.device("cpu")),
            ),
        ),
        "onnx": (
            st.one_of(of_bytes([_network().SerializeToString()]), _graphs()),
            _in_file(folder / "own.onnx", load_onnx),
        ),
    }


def _load(path: Path) -> object:
    return zoo.load(str(path), arch_args={"widths": [8]}, **_MLP)


def _in_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return parse


def _begun(folder: Path, tensors: dict[str, Any]) -> bytes:
    checkpoint = Checkpoint({}, tensors, None, {}, {}, [], "2")
    save_checkpoint(folder, checkpoint)
    return (folder / CHECKPOINT).read_bytes()


def _saved(content: object, zipped: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def _headers(whole: bytes) -> Drawn:
    """The same tensors under other headers, of the right length."""
    (length,) = struct.unpack("<Q", whole[:8])
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def joined(told: Any) -> bytes:
        text = json.dumps(told).encode()
        return struct.pack("<Q", len(text)) + text + body

    return of_json([header]).map(joined)


def _network() -> onnx.ModelProto:
    weight = torch.linspace(-1, 1, 18).reshape(2, 1, 3, 3).numpy()
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2]),
        helper.make_node("Reshape", ["c", "s"], ["d"]),
        helper.make_node("Gemm", ["d", "m"], ["y"], transB=1),
    ]
    held = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(torch.tensor([1, -1]).numpy(), "s"),
        numpy_helper.from_array(torch.ones(3, 18).numpy(), "m"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        held,
    )
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


_OPERATORS = ("Conv", "Relu", "MaxPool", "Reshape", "Gemm", "Add", "MatMul", "Transpose", "Concat",
              "Flatten", "Softmax", "Slice", "Gather", "Squeeze", "Pad", "Split", "Constant",
              "BatchNormalization", "AveragePool", "ConvTranspose", "Cast", "Clip")  # fmt: skip
_NUMBERS = st.one_of(st.integers(-5, 9), st.sampled_from([2**31, -(2**31), 2**62, -(2**62)]))


def _graphs() -> Drawn:
    """Sound protobuf of graphs that are not: operators, names, attributes, shapes exchanged."""
    change = st.tuples(
        st.sampled_from("odnarsvt"), st.integers(0, 40), st.integers(0, 40), _NUMBERS
    )
    return st.lists(change, min_size=1, max_size=4).map(_regraph)


def _regraph(changes: list[tuple[str, int, int, int]]) -> bytes:
    model = _network()
    graph = model.graph
    for kind, first, second, number in changes:
        if not graph.node:
            break
        node = graph.node[first % len(graph.node)]
        held = graph.initializer[second % len(graph.initializer)]
        if kind == "o":
            node.op_type = _OPERATORS[second % len(_OPERATORS)]
        elif kind == "d":
            graph.node.remove(node)
        elif kind == "n":
            graph.node.add().CopyFrom(node)
        elif kind == "a":
            for attribute in node.attribute:
                if attribute.ints:
                    attribute.ints[second % len(attribute.ints)] = number
                else:
                    attribute.i = number
        elif kind == "r" and node.input:
            node.input[second % len(node.input)] = graph.node[number % len(graph.node)].output[0]
        elif kind == "s":
            held.dims[first % len(held.dims)] = number
        elif kind == "v":
            size = graph.input[0].type.tensor_type.shape.dim[second % 4]
            size.dim_value = number
        elif kind == "t":
            held.data_type = first % 24
    data: bytes = model.SerializeToString()
    return data

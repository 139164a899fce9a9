"""What is not supported, or damaged, is refused in one line that names the node."""

from __future__ import annotations

import builtins
import gzip
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from onnx_makers import make_model, one, saved  # noqa: E402

from robustbench_c.errors import ModelError  # noqa: E402
from robustbench_c.foreign import load_onnx, onnx_graph  # noqa: E402


def floats(*shape):
    return np.ones(shape, dtype=np.float32)


def ints(*numbers):
    return np.array(numbers, dtype=np.int64)


def refused(model, tmp_path) -> str:
    path = model if hasattr(model, "exists") else saved(model, tmp_path)
    with pytest.raises(ModelError) as caught:
        load_onnx(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


NODES = {
    "unknown operator": (one("Einsum", "c", equation="ij,ij->ij"), {"c": floats(1, 6)}, "Einsum"),
    "custom domain": (one("Foo", domain="ai.own"), {}, "domain"),
    "batch moved": (one("Transpose", perm=[1, 0]), {}, "batch axis"),
    "batch lost": (one("Squeeze", "a"), {"a": ints(0)}, "batch axis"),
    "batch reshaped": (one("Reshape", "s"), {"s": ints(2, 3)}, "batch axis"),
    "batch summed": (one("ReduceSum", keepdims=0), {}, "batch axis"),
    "batch concatenated": (one("Concat", "x", axis=0), {}, "batch axis"),
    "batch softmax": (one("Softmax", axis=0), {}, "batch axis"),
    "batch gathered": (one("Gather", "i", axis=0), {"i": ints(0)}, "batch axis"),
    "batch padded": (one("Pad", "p"), {"p": ints(1, 0, 0, 0)}, "batch axis"),
    "batch of a constant": (one("Add", "c"), {"c": floats(2, 6)}, "batch of its own"),
    "batch in matmul": (one("MatMul", "w"), {"w": floats(2, 6, 3)}, "batch axis"),
    "batch as matrix": ([helper.make_node("MatMul", ["w", "x"], ["y"], name="the_node")],
        {"w": floats(4, 1)}, "batch"),
    "shapes": (one("Gemm", "w"), {"w": floats(5, 3)}, "the_node"),
    "broadcast": (one("Add", "c"), {"c": floats(5)}, "the_node"),
    "transA": (one("Gemm", "w", transA=1), {"w": floats(1, 3)}, "transposed"),
    "weight type": (one("Gemm", "w"), {"w": np.ones((6, 3))}, "float64"),
    "mixed types": (one("Add", "c"), {"c": np.ones(6)}, "float64"),
    "training": (one("Dropout", "r", "t"), {"r": np.float32(0.5), "t": np.array(True)}, "training"),
    "bounds depend": (one("Clip", "x"), {}, "depends"),
    "exponent": (one("Pow", "x"), {}, "depends"),
    "pad mode": (one("Pad", "p", mode="reflect"), {"p": ints(0, 1, 0, 1)}, "reflect"),
    "index": (one("Gather", "i", axis=1), {"i": ints(6)}, "outside"),
    "axis": (one("Softmax", axis=5), {}, "axis 5"),
    "nothing left": (one("Slice", "s", "s", "a"), {"s": ints(2), "a": ints(1)}, "nothing"),
    "huge": (one("Pad", "p"), {"p": ints(0, 0, 0, 2**40)}, "too large"),
    "cast": (one("Cast", to=TensorProto.INT64), {}, "not supported"),
    "unknown input": (one("Add", "nowhere"), {}, "nowhere"),
    "unknown attribute": (one("Relu", alpha=1.0), {}, "alpha"),
    "wrong attribute": (one("LeakyRelu", alpha="much"), {}, "alpha"),
    "arity": (one("Relu", "x"), {}, "Relu"),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_node(name, tmp_path):
    nodes, constants, word = NODES[name]
    message = refused(make_model(nodes, (1, 6), constants), tmp_path)
    assert word in message
    if "not valid ONNX" not in message:
        assert "node 'the_node' (" in message


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"kernel_shape": [3, 3], "strides": [0, 1]}, "below 1"),
        ({"kernel_shape": [3, 3], "pads": [-1, 0, 0, 0]}, "below 0"),
        ({"kernel_shape": [3]}, "do not fit"),
        ({"kernel_shape": [1, 1], "pads": [1, 1, 1, 1]}, "pads"),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME"}, "auto_pad"),
        ({"kernel_shape": [9, 9]}, "the_node"),
    ],
)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_window(op, attributes, word, tmp_path):
    message = refused(make_model(one(op, **attributes), (1, 2, 5, 5)), tmp_path)
    assert word in message


def test_average_pool_that_counts_unevenly(tmp_path):
    uneven = one("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    assert "count_include_pad" in refused(make_model(uneven, (1, 2, 5, 5)), tmp_path)
    over = one("AveragePool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    assert "ceil_mode" in refused(make_model(over, (1, 2, 5, 5)), tmp_path)


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ((5, 6), "batch axis of size 1"),
        ((6,), "batch axis of size 1"),
        ((), "batch axis of size 1"),
        ((1, "width"), "fixed size"),
        ((1, 0), "fixed size"),
        ((1, -4), "fixed size"),
        ((1, 2**40), "too large"),
    ],
)
def test_input_shape(shape, word, tmp_path):
    assert word in refused(make_model(one("Relu"), shape), tmp_path)


def test_graph(tmp_path):
    model = make_model(one("Relu"), (1, 6))
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 6)))
    assert "2 outputs" in refused(model, tmp_path)
    model = make_model(one("Relu"), (1, 6))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 6)))
    assert "2 inputs" in refused(model, tmp_path)
    kind = TensorProto.FLOAT16
    assert "float32" in refused(make_model(one("Relu"), (1, 6), kind=kind), tmp_path)
    for opset in (6, 99):
        assert f"operator set {opset}" in refused(
            make_model(one("Relu"), (1, 6), opset=opset), tmp_path
        )
    constant = [helper.make_node("Identity", ["c"], ["y"])]
    model = make_model(constant, (1, 6), {"c": floats(1, 6)})
    assert "does not depend" in refused(model, tmp_path)


def test_an_attribute_that_onnx_knows_and_no_rule_reads(tmp_path):
    model = make_model(one("Cast", to=1, round_mode="up"), (1, 6), opset=24)
    assert "attribute 'round_mode' is not supported" in refused(model, tmp_path)


def test_own_definition_of_a_known_operator(tmp_path):
    model = make_model(one("Relu"), (1, 6))
    body = [helper.make_node("Neg", ["a"], ["b"])]
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("", "Relu", ["a"], ["b"], body, imports))
    assert "anew" in refused(model, tmp_path)


def test_a_tensor_in_another_file_is_not_opened(tmp_path):
    secret = tmp_path / "weights.bin"
    secret.write_bytes(floats(6).tobytes())
    model = make_model(one("Add", "c"), (1, 6), {"c": floats(6)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    assert "another file" in refused(model, tmp_path)


def test_damaged_tensor(tmp_path):
    model = make_model(one("Add", "c"), (1, 6), {"c": floats(6)})
    model.graph.initializer[0].raw_data = b"123"
    assert "damaged" in refused(model, tmp_path)
    model.graph.initializer[0].dims[:] = [2**40, 2**40]
    assert "damaged" in refused(model, tmp_path)


def test_constants_that_double_until_memory_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "_MOST_ELEMENTS", 1000)
    nodes = [
        helper.make_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(60)
    ]
    nodes += [helper.make_node("Add", ["x", "c60"], ["y"])]
    assert "too large" in refused(make_model(nodes, (1, 6), {"c0": floats(6)}), tmp_path)


def test_files(tmp_path):
    assert "cannot be read" in refused(tmp_path / "none.onnx", tmp_path)
    assert "cannot be read" in refused(tmp_path, tmp_path)
    for name, content in {"a.onnx": b"text", "b.onnx.gz": b"no gzip", "c.onnx": b""}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, tmp_path)


def test_names_in_messages_are_one_short_line(tmp_path):
    node = helper.make_node("Bad\nOperator", ["x"], ["y"], name="\x1b[31m\n" * 50)
    message = refused(make_model([node], (1, 6)), tmp_path)
    assert "\x1b" not in message
    assert len(message) < 900


def test_without_onnx(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert re.search(r"pip install 'robustbench-c\[onnx\]'", refused(tmp_path / "n", tmp_path))


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_flipped_bytes_never_give_a_traceback(data, tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "s"], ["y"]),
    ]
    model = make_model(nodes, (1, 1, 3, 3), {"w": floats(1, 1, 3, 3), "s": ints(0, -1)})
    content = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.onnx"
    path.write_bytes(content)
    try:
        net = load_onnx(path)
    except ModelError as error:
        assert "\n" not in str(error)  # noqa: PT017  (loading may as well succeed)
    else:
        assert net(torch.zeros(2, *net.input_shape)).shape == (2, net.classes)


def test_gzipped(tmp_path):
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(make_model(one("Relu"), ("n", 6)).SerializeToString()))
    net = load_onnx(path)
    assert (net.input_shape, net.classes, net.dtype) == ((6,), 6, torch.float32)
    assert not net.training


def test_double_precision_stays(tmp_path):
    model = make_model(one("Add", "c"), (1, 6), {"c": np.full(6, 0.1)}, kind=TensorProto.DOUBLE)
    net = load_onnx(saved(model, tmp_path))
    assert net.dtype == torch.float64
    assert net(torch.zeros(1, 6, dtype=net.dtype))[0, 0].item() == 0.1


def test_what_the_output_does_not_need_is_not_read(tmp_path):
    extra = helper.make_node("Einsum", ["x"], ["unused"], equation="ij->i")
    assert load_onnx(saved(make_model([extra, *one("Relu")], (1, 6)), tmp_path)).classes == 6


def test_initializers_are_parameters_under_safe_names(tmp_path):
    names = ["forward", "0.weight", "a b\n"]
    nodes = [
        helper.make_node("Add", ["x", names[0]], ["p"]),
        helper.make_node("Add", ["p", names[1]], ["q"]),
        helper.make_node("Add", ["q", names[2]], ["y"]),
    ]
    net = load_onnx(saved(make_model(nodes, (1, 6), {n: floats(6) for n in names}), tmp_path))
    assert [name for name, _ in net.network.named_parameters()] == [
        "forward_1",
        "p_0_weight",
        "a_b_",
    ]
    assert torch.equal(net(torch.zeros(1, 6)), torch.full((1, 6), 3.0))

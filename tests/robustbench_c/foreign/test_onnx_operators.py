"""Each operator against onnx's own evaluation, sample by sample, in a batch of three."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402
from onnx_makers import make_model, one, reference, saved  # noqa: E402

from robustbench_c.foreign import load_onnx  # noqa: E402
from robustbench_c.foreign.onnx_ops import RULES  # noqa: E402

VECTOR, IMAGE, SIGNAL, VOLUME = (1, 6), (1, 4, 7, 6), (1, 4, 9), (1, 2, 5, 4, 5)
POSITIVE = {"Sqrt"}
_draw = np.random.default_rng(0)


def floats(*shape):
    return _draw.normal(size=shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, dtype=np.int64)


def chain(*steps):
    """Nodes from (operator, further inputs, attributes), each fed by the one before."""
    names = ["x", *(f"v{i}" for i in range(len(steps) - 1)), "y"]
    return [
        helper.make_node(op, [names[i], *more], [names[i + 1]], **attributes)
        for i, (op, more, attributes) in enumerate(steps)
    ]


def case(nodes, shape=VECTOR, constants=None, opset=17, id=None):
    name = id or "-".join(node.op_type for node in nodes)
    return pytest.param(make_model(nodes, shape, constants, opset), id=f"{name}-{opset}")


def windows(op, extra, constants=None):
    """The settings that convolution and pooling share."""
    kernel = {"kernel_shape": [3, 2]}
    for name, attributes in {
        "plain": {},
        "pads": {"pads": [1, 1, 1, 1], "strides": [2, 1]},
        "same-upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        "same-lower": {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        "valid": {"auto_pad": "VALID", "strides": [2, 2]},
        "uneven": {"pads": [0, 1, 1, 0], "strides": [1, 2]},
    }.items():
        nodes = one(op, *(constants or {}), **kernel, **attributes, **extra)
        yield case(nodes, IMAGE, constants, id=f"{op}-{name}")


ELEMENTWISE = [
    *(
        case(one(op))
        for op in ["Relu", "Sigmoid", "Tanh", "Softplus", "Exp", "Neg", "Sqrt", "Erf", "Identity"]
    ),
    case(one("LeakyRelu")),
    case(one("LeakyRelu", alpha=0.3)),
    case(one("Elu", alpha=0.7)),
    case(one("Clip", "a", "b"), constants={"a": np.float32(-0.5), "b": np.float32(0.25)}),
    case(one("Clip", "", "b"), constants={"b": np.float32(0.25)}, id="Clip-above"),
    case(one("Clip"), id="Clip-not-at-all"),
    case(one("Clip", min=-0.5, max=0.5), opset=9),
    *(
        case(one(op, "c"), shape, {"c": floats(*other)}, id=f"{op}-{other}")
        for op in ["Add", "Sub", "Mul", "Div"]
        for shape, other in [(VECTOR, (6,)), (VECTOR, (1, 6)), (IMAGE, (4, 1, 1)), (VECTOR, ())]
    ),
    case([helper.make_node("Sub", ["c", "x"], ["y"])], constants={"c": floats(6)}, id="c-Sub-x"),
    case([helper.make_node("Mul", ["x", "x"], ["y"])], id="Mul-itself"),
    case(one("Add", "c"), constants={"c": floats(1, 3, 6)}, id="Add-more-axes"),
    case(
        [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
            helper.make_node("Unsqueeze", ["m", "i"], ["u"]),
            helper.make_node("Concat", ["u", "u"], ["v"], axis=1),
            helper.make_node("Mul", ["v", "m"], ["y"]),
        ],
        IMAGE,
        {"i": ints(1)},
        id="Mul-values-of-unequal-rank",
    ),
    *(case(one("Pow", "e"), constants={"e": np.float32(e)}, id=f"Pow-{e}") for e in [2, 3, -1, 0]),
    *(case(one("Softmax", axis=axis), IMAGE, opset=o) for axis, o in [(1, 17), (-1, 13), (-1, 11)]),
]

LINEAR = [
    case(one("Gemm", "w", "b"), constants={"w": floats(6, 3), "b": floats(3)}),
    case(one("Gemm", "w"), constants={"w": floats(6, 3)}, id="Gemm-no-bias"),
    case(
        one("Gemm", "w", "b", transB=1),
        constants={"w": floats(3, 6), "b": floats(1, 3)},
        id="Gemm-transB",
    ),
    case(
        one("Gemm", "w", "b", alpha=0.3, beta=-1.7),
        constants={"w": floats(6, 3), "b": floats(3)},
        id="Gemm-alpha-beta",
    ),
    case(
        one("Gemm", "w", "b", beta=2.0, transB=1),
        constants={"w": floats(3, 6), "b": floats(1)},
        id="Gemm-broadcast",
    ),
    case(one("Gemm", "w", "x", beta=0.5), constants={"w": floats(6, 6)}, id="Gemm-plus-x"),
    case(one("MatMul", "w"), constants={"w": floats(6, 3)}),
    case(one("MatMul", "w"), constants={"w": floats(6)}, id="MatMul-vector"),
    case(one("MatMul", "w"), SIGNAL, {"w": floats(9, 2)}, id="MatMul-3d"),
    case(
        [helper.make_node("MatMul", ["w", "x"], ["y"])],
        SIGNAL,
        {"w": floats(3, 4)},
        id="MatMul-left",
    ),
    case(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["x", "t"], ["y"]),
        ],
        SIGNAL,
        id="MatMul-both",
    ),
    case(
        one("BatchNormalization", "s", "b", "m", "v", epsilon=1e-3),
        IMAGE,
        {"s": floats(4), "b": floats(4), "m": floats(4), "v": floats(4) ** 2},
    ),
    *windows("Conv", {}, {"w": floats(3, 4, 3, 2), "b": floats(3)}),
    *windows("Conv", {"group": 2}, {"w": floats(6, 2, 3, 2)}),
    *windows("Conv", {"dilations": [2, 1]}, {"w": floats(3, 4, 3, 2)}),
    case(one("Conv", "w", pads=[2, 1], strides=[2]), SIGNAL, {"w": floats(3, 4, 3)}, id="Conv1d"),
    case(one("Conv", "w", pads=[1] * 6), VOLUME, {"w": floats(3, 2, 3, 2, 3)}, id="Conv3d"),
]

POOLS = [
    *(each for each in windows("MaxPool", {}) if "lower" not in each.id),
    *(each for each in windows("AveragePool", {"count_include_pad": 1}) if "lower" not in each.id),
    case(one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), IMAGE, id="Max-ceil"),
    case(
        one("MaxPool", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, pads=[0, 0, 1, 1]),
        IMAGE,
        id="Max-ceil-pads",
    ),
    case(one("MaxPool", kernel_shape=[2], strides=[2]), SIGNAL, id="MaxPool1d"),
    case(one("MaxPool", kernel_shape=[2, 2], dilations=[2, 1]), IMAGE, id="MaxPool-dilation"),
    case(one("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1]), IMAGE, id="Average-pads"),
    case(one("AveragePool", kernel_shape=[2], strides=[2]), SIGNAL, id="AveragePool1d"),
    case(one("GlobalAveragePool"), IMAGE),
]

SHAPES = [
    case(one("Flatten"), IMAGE),
    case(one("Flatten", axis=0), IMAGE, id="Flatten-0"),
    case(one("Flatten", axis=-3), IMAGE, id="Flatten-back"),
    case(one("Reshape", "s"), IMAGE, {"s": ints(1, -1)}),
    case(one("Reshape", "s"), IMAGE, {"s": ints(-1, 4, 42)}, id="Reshape-front"),
    case(one("Reshape", "s"), IMAGE, {"s": ints(0, 0, -1)}, id="Reshape-zero"),
    case(one("Transpose", perm=[0, 3, 1, 2]), IMAGE),
    case(one("Squeeze", "a"), (1, 1, 5, 1), {"a": ints(-1, 0)}, id="Squeeze-axes"),
    case(one("Squeeze", axes=[1]), (1, 1, 5), opset=11),
    case(one("Unsqueeze", "a"), VECTOR, {"a": ints(0, -1)}),
    case(one("Unsqueeze", axes=[1]), VECTOR, opset=11),
    case(one("Concat", "x", axis=1), VECTOR),
    case(one("Concat", "c", axis=-1), IMAGE, {"c": floats(1, 4, 7, 2)}, id="Concat-constant"),
    case(
        one("Slice", "s", "e", "a", "t"),
        IMAGE,
        {"s": ints(1, -1), "e": ints(100, -(2**62)), "a": ints(1, -1), "t": ints(2, -2)},
    ),
    case(one("Slice", "s", "e"), VECTOR, {"s": ints(0, -3), "e": ints(1, 6)}, id="Slice-all-axes"),
    case(one("Slice", starts=[1], ends=[-1], axes=[1]), VECTOR, opset=9),
    case(one("Gather", "i", axis=1), VECTOR, {"i": ints(0, -1, 2)}),
    case(one("Gather", "i", axis=2), IMAGE, {"i": np.int64(-2)}, id="Gather-scalar"),
    case(one("Gather", "i", axis=-1), IMAGE, {"i": np.array([[0, 1], [5, -6]])}, id="Gather-2d"),
    case(one("Pad", "p"), IMAGE, {"p": ints(0, 0, 1, 2, 0, 1, 0, 3)}),
    case(one("Pad", "p", "v"), VECTOR, {"p": ints(0, 1, 0, 2), "v": np.float32(0.5)}, id="Pad-v"),
    case(one("Pad", "p", "", "a"), IMAGE, {"p": ints(1, 2), "a": ints(-1)}, 18, id="Pad-axes"),
    case(one("Pad", pads=[0, 1, 0, 2], value=2.5, mode="constant"), VECTOR, opset=10),
    case(one("ReduceMean", axes=[2, 3]), IMAGE),
    case(one("ReduceMean", axes=[-1], keepdims=0), IMAGE, id="ReduceMean-drop"),
    case(one("ReduceMean", "a", keepdims=0), IMAGE, {"a": ints(1, 3)}, 18),
    case(one("ReduceMean"), IMAGE, id="ReduceMean-all"),
    case(one("ReduceSum", "a"), IMAGE, {"a": ints(0, 1)}),
    case(one("ReduceSum", noop_with_empty_axes=1), IMAGE, id="ReduceSum-none"),
    case(one("ReduceSum", axes=[1], keepdims=0), IMAGE, opset=11),
    case(one("Dropout"), VECTOR),
    case(one("Dropout", ratio=0.3), VECTOR, opset=11),
    case(one("Cast", to=1), VECTOR),
]

CONSTANTS = [
    case(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Constant", [], ["zero"], value_int=0),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Unsqueeze", ["n", "axis"], ["batch"]),
            helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "target"], ["y"]),
        ],
        IMAGE,
        {"axis": ints(0), "rest": ints(-1)},
        id="view-of-the-batch-size",
    ),
    case(
        [
            helper.make_node(
                "ConstantOfShape",
                ["s"],
                ["c"],
                value=onnx.numpy_helper.from_array(np.array([1.5], dtype=np.float32)),
            ),
            helper.make_node("Constant", [], ["f"], value_floats=[1.0, 2.0]),
            helper.make_node("Concat", ["c", "f"], ["d"], axis=0),
            helper.make_node("Add", ["x", "d"], ["y"]),
        ],
        constants={"s": ints(4)},
        id="ConstantOfShape",
    ),
    case(
        [
            helper.make_node("Cast", ["i"], ["f"], to=1),
            helper.make_node("Div", ["i", "two"], ["h"]),
            helper.make_node("Cast", ["h"], ["g"], to=1),
            helper.make_node("Mul", ["x", "f"], ["z"]),
            helper.make_node("Sub", ["z", "g"], ["y"]),
        ],
        constants={"i": ints(-3, 2, 5, 7, 8, 9), "two": ints(2)},
        id="whole-numbers",
    ),
]


@pytest.mark.parametrize("model", [*ELEMENTWISE, *LINEAR, *POOLS, *SHAPES, *CONSTANTS])
def test_equals_onnx(model, tmp_path):
    net = load_onnx(saved(model, tmp_path))
    x = torch.randn(3, *net.input_shape, generator=torch.Generator().manual_seed(1))
    x = x.abs() if model.graph.node[0].op_type in POSITIVE else x
    expected = reference(model)(x.numpy())
    got = net(x)
    assert got.shape == expected.shape == (3, net.classes)
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pooling_same_lower(op, tmp_path):
    """By hand, since onnx's own evaluation gives it another shape than its specification."""
    common = {"kernel_shape": [3, 3], "strides": [2, 2]}
    if op == "AveragePool":
        common["count_include_pad"] = 1
    x = torch.randn(3, *IMAGE[1:])
    outputs = [
        load_onnx(saved(make_model(one(op, **common, **pads), IMAGE), tmp_path))(x)
        for pads in ({"auto_pad": "SAME_LOWER"}, {"pads": [1, 1, 1, 0]})
    ]
    assert outputs[0].shape == (3, 4 * 4 * 3)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_before_version_13_is_over_all_further_axes(axis, tmp_path):
    """By hand, since onnx's own evaluation knows the later meaning only."""
    net = load_onnx(saved(make_model(one("Softmax", axis=axis), IMAGE, opset=11), tmp_path))
    x = torch.randn(3, *IMAGE[1:])
    assert torch.equal(net(x), x.flatten(axis).softmax(-1).flatten(1))


def test_every_rule_is_tested():
    cases = [*ELEMENTWISE, *LINEAR, *POOLS, *SHAPES, *CONSTANTS]
    tested = {node.op_type for case in cases for node in case.values[0].graph.node}
    assert set(RULES) == tested


def test_traces_with_all_tensors_as_inputs(tmp_path):
    constants = {"w": floats(3, 4, 3, 2), "b": floats(3), "c": floats(1, 3, 1, 1), "s": ints(0, -1)}
    steps = chain(
        ("Conv", ["w", "b"], {"auto_pad": "SAME_UPPER"}),
        ("Relu", [], {}),
        ("Add", ["c"], {}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
        ("Reshape", ["s"], {}),
    )
    net = load_onnx(saved(make_model(steps, IMAGE, constants), tmp_path))
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    x = torch.randn(3, *net.input_shape)
    traced = make_fx(lambda t, x: functional_call(net, t, (x,)))(tensors, x)
    lifted = [node.target for node in traced.graph.nodes if node.op == "get_attr"]
    assert lifted == []
    assert torch.equal(traced(tensors, x + 1), net(x + 1))

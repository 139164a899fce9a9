"""What is read is an ordinary module: it is copied, sent, moved and converted like any other."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")

from onnx import helper
from onnx_makers import make_model, saved

from robustbench_c.foreign import OnnxModel, load_onnx


@pytest.fixture
def net(tmp_path) -> OnnxModel:
    draw = np.random.default_rng(0)
    constants = {
        "w": draw.normal(size=(3, 1, 3, 3)).astype(np.float32),
        "c": draw.normal(size=(1, 1, 4, 4)).astype(np.float32),
        **{name: np.ones(3, dtype=np.float32) for name in ("scale", "bias", "mean", "var")},
        "start": np.array([1]), "end": np.array([3]), "i": np.array([3, 0]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER"),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["b"]),
        helper.make_node("Concat", ["b", "c"], ["d"], axis=1),
        helper.make_node("Slice", ["d", "start", "end", "start"], ["e"]),
        helper.make_node("Gather", ["d", "i"], ["f"], axis=1),
        helper.make_node("Add", ["e", "f"], ["g"]),
        helper.make_node("MaxPool", ["g"], ["h"], kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Flatten", ["h"], ["y"]),
    ]
    return load_onnx(saved(make_model(nodes, (1, 1, 4, 4), constants), tmp_path))


def test_copied_and_pickled(net):
    x = torch.randn(3, 1, 4, 4)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), net(x))
        assert (other.input_shape, other.classes, other.dtype) == ((1, 4, 4), 32, torch.float32)
        assert list(other.state_dict()) == list(net.state_dict())
        assert not other.training


def test_weights_and_statistics(net):
    names = {name.removeprefix("network.") for name, _ in net.named_parameters()}
    assert names == {"w", "c", "scale", "bias"}
    assert {"network.mean", "network.var"} <= {name for name, _ in net.named_buffers()}


def test_gradients_reach_input_and_weights(net):
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    net(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(weight.grad is not None for weight in net.parameters())


def test_in_double_precision_it_is_the_same_function(net):
    x = torch.randn(3, 1, 4, 4)
    single = net(x)
    assert torch.allclose(copy.deepcopy(net).double()(x.double()).float(), single, atol=1e-5)
    assert torch.equal(net.train()(x), single)  # the mode changes nothing that was exported


def test_one_by_one_and_in_any_batch(net):
    x = torch.randn(5, 1, 4, 4)
    singly = torch.cat([net(sample[None]) for sample in x])
    torch.testing.assert_close(net(x), singly)
    assert net(x[:0]).shape == (0, 32)

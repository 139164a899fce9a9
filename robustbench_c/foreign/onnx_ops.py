"""Rules for ONNX operators that compute, and the table of all rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from robustbench_c.foreign import onnx_shapes as shapes
from robustbench_c.foreign import onnx_windows as windows
from robustbench_c.foreign.onnx_graph import Operation, Value, axis_of


def _unary(function: Callable[..., Any]) -> Callable[[Operation], Value]:
    return lambda op: op.emit(function, op.input())


def _binary(function: Callable[..., Any]) -> Callable[[Operation], Value]:
    def rule(op: Operation) -> Value:
        left, right = _aligned(op, op.input(0), op.input(1))
        return op.emit(function, left, right)

    return rule


def _aligned(op: Operation, left: Value, right: Value) -> tuple[Value, Value]:
    """Give both the same number of axes, so that batch axes meet."""
    if left.tensor.dtype != right.tensor.dtype:
        raise ValueError(f"mixes {left.tensor.dtype} and {right.tensor.dtype}")
    if left.constant and right.constant:
        return left, right
    rank = max(left.rank, right.rank)
    for value in (left, right):
        if value.constant and value.rank == rank and value.shape[0] != 1:
            raise ValueError(f"a constant of shape {value.shape} states a batch of its own")

    def with_axes(value: Value) -> Value:
        if value.constant:
            return value
        return op.reshape(value, (1,) * (rank - value.rank) + value.shape)

    return with_axes(left), with_axes(right)


def _divide(op: Operation) -> Value:
    left, right = _aligned(op, op.input(0), op.input(1))
    if left.tensor.is_floating_point():
        return op.emit(torch.div, left, right)
    if bool((right.tensor == 0).any()):
        raise ValueError("divides a whole number by zero")
    return op.emit(torch.div, left, right, rounding_mode="trunc")


def _power(op: Operation) -> Value:
    x, exponent = op.input(), op.scalar(1)
    if exponent is None:
        raise ValueError("input 1 is missing")
    if not x.tensor.is_floating_point():
        raise ValueError("of whole numbers is not supported")
    whole = math.isfinite(exponent) and exponent == int(exponent)
    return op.emit(torch.pow, x, int(exponent) if whole else exponent)


def _clip(op: Operation) -> Value:
    x = op.input()
    if op.version >= 11:
        least, most = op.scalar(1), op.scalar(2)
        return x if least is most is None else op.emit(torch.clamp, x, least, most)
    lowest = torch.finfo(torch.float32)
    least, most = op.attribute("min", lowest.min), op.attribute("max", lowest.max)
    return op.emit(torch.clamp, x, least, most)


def _softmax(op: Operation) -> Value:
    x = op.input()
    if op.version >= 13:
        return op.emit(torch.softmax, x, axis_of(x, op.attribute("axis", -1)))
    axis = axis_of(x, op.attribute("axis", 1))  # before version 13 all axes from this one on
    flat = op.reshape(x, (*x.shape[:axis], math.prod(x.shape[axis:])))
    return op.reshape(op.emit(torch.softmax, flat, axis), x.shape)


def _reduce(function: Callable[..., Any], axes_input_since: int) -> Callable[[Operation], Value]:
    def rule(op: Operation) -> Value:
        x = op.input()
        given = op.ints("axes", 1 if op.version >= axes_input_since else 99, ())
        keep = bool(op.attribute("keepdims", 1))
        if op.attribute("noop_with_empty_axes", 0) and not given:
            return x
        axes = {axis % x.rank if -x.rank <= axis else axis for axis in given or range(x.rank)}
        if any(axis not in range(x.rank) for axis in axes):
            raise ValueError(f"axes {given} do not exist: the tensor has {x.rank} axes")
        if not x.constant and 0 in axes:
            if not keep:
                raise ValueError("removes the batch axis")
            axes.discard(0)  # over one sample only: nothing to reduce
        if not axes:
            return x
        return op.emit(function, x, tuple(sorted(axes)), keepdim=keep)

    return rule


def _matmul(op: Operation) -> Value:
    left, right = op.input(0), op.input(1)
    if not (left.constant and right.constant):
        _check_matmul(left, right)
    return op.emit(torch.matmul, left, right)


def _check_matmul(left: Value, right: Value) -> None:
    rank = max(left.rank, right.rank)
    for value in (left, right):
        if value.constant and value.rank == rank > 2 and value.shape[0] != 1:
            raise ValueError(f"a constant of shape {value.shape} states a batch of its own")
        if not value.constant and value.rank < rank:
            raise ValueError(f"shapes {left.shape} and {right.shape} would misplace the batch axis")
    if left.rank < 2 and not left.constant:
        raise ValueError(f"of shape {left.shape} would sum over the batch")
    if right.rank < 3 and not right.constant:
        raise ValueError(f"shapes {left.shape} and {right.shape} would sum over the batch")


def _gemm(op: Operation) -> Value:
    x, weight, bias = op.input(0), op.input(1), op.optional(2)
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    if op.attribute("transA", 0) or x.constant or not weight.constant:
        raise ValueError("only input 0 may depend on the network's input, and not transposed")
    if x.rank != 2 or weight.rank != 2:
        raise ValueError(f"of shapes {x.shape} and {weight.shape}: both need two axes")
    if not op.attribute("transB", 0):
        weight = op.emit(torch.t, weight)
    plain = alpha == 1 and (bias is None or beta == 1)
    if plain and (bias is None or (bias.constant and math.prod(bias.shape) == weight.shape[0])):
        flat = op.reshape(bias, (weight.shape[0],)) if bias and bias.rank != 1 else bias
        return op.emit(F.linear, x, weight, flat)
    product = op.emit(F.linear, x, weight)
    if alpha != 1:
        product = op.emit(torch.mul, product, alpha)
    if bias is None or beta == 0:
        return product
    scaled = bias if beta == 1 else op.emit(torch.mul, bias, beta)
    product, scaled = _aligned(op, product, scaled)
    return op.emit(torch.add, product, scaled)


def _batch_norm(op: Operation) -> Value:
    x, *statistics = op.inputs
    if x.constant or not all(value.constant for value in statistics):
        raise ValueError("only input 0 may depend on the network's input")
    if op.attribute("training_mode", 0) or not op.attribute("spatial", 1):
        raise ValueError("training_mode=1 or spatial=0; export the model for inference")
    op.attribute("momentum", 0.9)  # speaks of training
    eps = op.attribute("epsilon", 1e-5)
    weight, bias, mean, var = statistics
    mean, var = replace(mean, learned=False), replace(var, learned=False)
    return op.emit(F.batch_norm, x, mean, var, weight, bias, False, 0.0, eps)


RULES: dict[str, Callable[[Operation], Value]] = {
    "Add": _binary(torch.add),
    "AveragePool": windows.average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": shapes.cast,
    "Clip": _clip,
    "Concat": shapes.concat,
    "Constant": shapes.constant,
    "ConstantOfShape": shapes.constant_of_shape,
    "Conv": windows.conv,
    "Div": _divide,
    "Dropout": shapes.dropout,
    "Elu": lambda op: op.emit(F.elu, op.input(), op.attribute("alpha", 1.0)),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "Gemm": _gemm,
    "GlobalAveragePool": windows.global_average_pool,
    "Identity": shapes.identity,
    "LeakyRelu": lambda op: op.emit(F.leaky_relu, op.input(), op.attribute("alpha", 0.01)),
    "MatMul": _matmul,
    "MaxPool": windows.max_pool,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Pad": shapes.pad,
    "Pow": _power,
    "ReduceMean": _reduce(torch.mean, axes_input_since=18),
    "ReduceSum": _reduce(torch.sum, axes_input_since=13),
    "Relu": _unary(torch.relu),
    "Reshape": shapes.reshape,
    "Shape": shapes.shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": shapes.slice_,
    "Softmax": _softmax,
    "Softplus": _unary(F.softplus),
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": shapes.squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}
"""By operator of ONNX's own domain; a rule reads inputs and attributes and adds to the graph."""

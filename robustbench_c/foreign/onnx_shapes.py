"""Rules for ONNX operators that move numbers about and compute none."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from robustbench_c.foreign.onnx_graph import Operation, Value, axis_of, check_size

_TYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    11: torch.float64,
}  # of TensorProto.DataType


def identity(op: Operation) -> Value:
    """Identity."""
    return op.input()


def dropout(op: Operation) -> Value:
    """Dropout, which at inference does nothing."""
    op.attribute("ratio", 0.5)
    op.attribute("seed", 0)
    if op.scalar(2):
        raise ValueError("training_mode is on; export the model for inference")
    return op.input()


def cast(op: Operation) -> Value:
    """Cast of a constant, or to the type that it has."""
    x, kind = op.input(), op.attribute("to", 0)
    op.attribute("saturate", 1)  # speaks of 8-bit floats only
    if kind not in _TYPES:
        raise ValueError(f"type {kind} is not supported")
    if x.tensor.dtype == _TYPES[kind]:
        return x
    if not x.constant:
        raise ValueError(f"to {_TYPES[kind]} of what depends on the input is not supported")
    return op.emit(torch.Tensor.to, x, _TYPES[kind])


def constant(op: Operation) -> Value:
    """Constant."""
    tensor = op.tensor_attribute("value")
    if tensor is not None:
        return Value(tensor)
    if op.has("value_int"):
        return Value(torch.tensor(op.attribute("value_int", 0)))
    if op.has("value_ints"):
        return Value(torch.tensor(op.attribute("value_ints", ()), dtype=torch.int64))
    if op.has("value_float"):
        return Value(torch.tensor(op.attribute("value_float", 0.0), dtype=torch.float32))
    if op.has("value_floats"):
        return Value(torch.tensor(op.attribute("value_floats", ()), dtype=torch.float32))
    raise ValueError("holds no tensor and no number")


def constant_of_shape(op: Operation) -> Value:
    """ConstantOfShape."""
    shape, value = op.ints("input", 0, ()), op.tensor_attribute("value")
    value = torch.zeros(1) if value is None else value
    if value.numel() != 1:
        raise ValueError("attribute value is not one number")
    check_size(shape)
    return op.emit(torch.Tensor.expand, Value(value.reshape(())), tuple(shape))


def shape(op: Operation) -> Value:
    """Shape, for a batch of 1."""
    x = op.input()
    start, end = op.attribute("start", 0), op.attribute("end", x.rank)
    return Value(torch.tensor(x.shape[start:end], dtype=torch.int64))


def flatten(op: Operation) -> Value:
    """Flatten."""
    x, axis = op.input(), op.attribute("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise ValueError(f"axis {axis} does not exist: the tensor has {x.rank} axes")
    axis = axis + x.rank if axis < 0 else axis
    return op.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def reshape(op: Operation) -> Value:
    """Reshape to a constant shape."""
    x, target = op.input(), list(op.ints("shape", 1, ()))
    if not op.attribute("allowzero", 0):
        if any(side == 0 and i >= x.rank for i, side in enumerate(target)):
            raise ValueError(f"the shape {target} copies an axis that {x.shape} does not have")
        target = [side or x.shape[i] for i, side in enumerate(target)]
    if target.count(-1) == 1:
        rest = math.prod(side for side in target if side != -1)
        target[target.index(-1)] = math.prod(x.shape) // rest if rest > 0 else 0
    check_size(target)
    return op.reshape(x, target)


def squeeze(op: Operation) -> Value:
    """Squeeze."""
    x = op.input()
    ones = tuple(i for i, side in enumerate(x.shape) if side == 1)
    axes = {_any_axis(x.rank, axis) for axis in op.ints("axes", 1, ones)}
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"an axis of {x.shape} that is not of size 1")
    return op.reshape(x, [side for i, side in enumerate(x.shape) if i not in axes])


def unsqueeze(op: Operation) -> Value:
    """Unsqueeze."""
    x = op.input()
    axes = op.ints("axes", 1, ())
    rank = x.rank + len(axes)
    new = {_any_axis(rank, axis) for axis in axes}
    if len(new) != len(axes):
        raise ValueError(f"axes {axes} name one twice")
    old = iter(x.shape)
    return op.reshape(x, [1 if i in new else next(old) for i in range(rank)])


def transpose(op: Operation) -> Value:
    """Transpose that leaves the batch axis where it is."""
    x = op.input()
    order = op.attribute("perm", tuple(reversed(range(x.rank))))
    if sorted(order) != list(range(x.rank)):
        raise ValueError(f"perm {order} is no order of {x.rank} axes")
    if not x.constant and order[0] != 0:
        raise ValueError(f"perm {order} moves the batch axis")
    return op.emit(torch.permute, x, order)


def concat(op: Operation) -> Value:
    """Concat; constants among the inputs are repeated for each sample."""
    values = op.inputs
    first = next((value for value in values if not value.constant), values[0])
    axis = axis_of(first, op.attribute("axis", 0))
    if any(v.rank != first.rank or (not first.constant and v.shape[0] != 1) for v in values):
        raise ValueError("the inputs differ in their number of axes or in their first axis")
    if not first.constant:
        values = [op.emit(_repeated, v, first, v.shape[1:]) if v.constant else v for v in values]
    return op.emit(torch.cat, values, axis)


def slice_(op: Operation) -> Value:
    """Slice with constant ends."""
    x = op.input()
    starts, ends = op.ints("starts", 1, ()), op.ints("ends", 2, ())
    axes = op.ints("axes", 3, tuple(range(len(starts))))
    steps = op.ints("steps", 4, (1,) * len(starts)) if op.version >= 10 else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError("starts, ends, axes and steps differ in length, or a step is 0")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[_any_axis(x.rank, axis)]
        taken = range(*slice(start, end, step).indices(size))
        if taken == range(size):
            continue
        axis = axis_of(x, axis)
        if not taken:
            raise ValueError(f"nothing is left of axis {axis}")
        if step > 0:
            x = op.emit(torch.ops.aten.slice.Tensor, x, axis, taken.start, taken.stop, step)
        else:
            x = op.emit(torch.index_select, x, axis, Value(torch.tensor(list(taken))))
    return x


def gather(op: Operation) -> Value:
    """Gather with a constant index."""
    x, index = op.input(0), op.constant(1)
    axis = axis_of(x, op.attribute("axis", 0))
    if index is None or index.is_floating_point():
        raise ValueError("needs an index of whole numbers")
    size = x.shape[axis]
    if bool(((index < -size) | (index >= size)).any()):
        raise ValueError(f"an index is outside of axis {axis}, which has {size} entries")
    index = index.long() % size
    if index.ndim == 0:
        return op.emit(torch.select, x, axis, int(index))
    taken = op.emit(torch.index_select, x, axis, Value(index.reshape(-1)))
    if index.ndim == 1:
        return taken
    return op.reshape(taken, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def pad(op: Operation) -> Value:
    """Pad with a constant number."""
    x = op.input()
    if (mode := op.attribute("mode", "constant")) != "constant":
        raise ValueError(f"mode {mode!r} is not supported, only 'constant'")
    pads = op.ints("pads", 1, ())
    number = op.scalar(2)
    fill = op.attribute("value", 0.0) if number is None else number
    axes = op.ints("axes", 3, tuple(range(x.rank))) if op.version >= 18 else tuple(range(x.rank))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    flat = [0] * (2 * x.rank)
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        place = _any_axis(x.rank, axis)
        if begin or end:
            axis_of(x, axis)
        back = 2 * (x.rank - 1 - place)
        flat[back : back + 2] = [begin, end]
    return op.emit(F.pad, x, tuple(flat), "constant", fill)


def _repeated(constant: Tensor, like: Tensor, sides: tuple[int, ...]) -> Tensor:
    # The sides come as numbers since fx, which traces this to unpickle it, cannot iterate a shape.
    return constant.expand(like.shape[0], *sides)


def _any_axis(rank: int, axis: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} does not exist among {rank}")
    return axis % rank

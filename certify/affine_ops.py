"""Which ATen calls are linear maps, and of which kind."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from certify import slopes
from certify.graph import Node, Ref, has_size, unsupported
from certify.interval import Interval
from certify.maps import Convolution, LinearMap, Matrix, Scale, maps, share
from certify.program import Program

aten = torch.ops.aten


def _value(program: Program, argument: Any) -> Any:
    """A constant argument; None for one that depends on the input."""
    if isinstance(argument, Ref):
        return program.constants.get(argument.index)
    return argument


def _middle(value: Tensor | Interval | None) -> Tensor | None:
    return value.center if isinstance(value, Interval) else value


def _size(value: Tensor | Interval | None) -> Tensor | None:
    if value is None:
        return None
    return value.magnitude if isinstance(value, Interval) else value.abs()


@maps(aten.addmm.default)
def addmm(program: Program, node: Node, source: int) -> LinearMap | None:
    """`bias + x @ weight`."""
    bias, x, weight = node.args[:3]
    if node.kwargs or x != Ref(source):
        return None
    return _matrix(_value(program, weight), _value(program, bias))


@maps(aten.mm.default)
def mm(program: Program, node: Node, source: int) -> LinearMap | None:
    """`x @ weight`."""
    x, weight = node.args
    return _matrix(_value(program, weight), None) if x == Ref(source) else None


def _matrix(weight: Tensor | Interval | None, bias: Tensor | Interval | None) -> LinearMap | None:
    middle = _middle(weight)
    if middle is None:
        return None
    found = Matrix(middle, _middle(bias), _size(bias))
    if isinstance(weight, Interval) or isinstance(bias, Interval):
        found.slack = slack = Matrix(*_radii(weight, bias))
        found.slack_share = share(slack.weight, middle)
    return found


def _radii(weight: Any, bias: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """How far weight and bias may be from their middles."""

    def radius(value: Any) -> Any:
        if isinstance(value, Interval):
            return torch.maximum(value.upper - value.center, value.center - value.lower)
        return None if value is None else torch.zeros_like(value)

    return radius(weight), None, radius(bias)


@maps(aten.convolution.default)
def convolution(program: Program, node: Node, source: int) -> LinearMap | None:
    """Of any dimension, transposed or not."""
    x, weight, bias, *settings = node.args
    kernels = _value(program, weight)
    if x != Ref(source) or kernels is None:
        return None
    if has_size(tuple(settings)):
        raise unsupported(node, "has as many groups as the batch has samples")
    offsets, shape = _value(program, bias), program.shape(source)
    middle = _middle(kernels)
    assert middle is not None
    found = Convolution(middle, _middle(offsets), _size(offsets), settings, shape)
    if isinstance(kernels, Interval) or isinstance(offsets, Interval):
        found.slack = slack = Convolution(*_radii(kernels, offsets), settings, shape)
        found.slack_share = share(slack.weight, middle)
    return found


@maps(aten.batch_norm.default)
def batch_norm(program: Program, node: Node, source: int) -> LinearMap | None:
    """In eval mode: each channel times a constant, plus one."""
    weight, bias, mean, var = (_value(program, a) for a in node.args[1:5])
    eps = node.args[7]
    if any(isinstance(v, Interval) for v in (weight, bias, mean, var)):
        return None
    shape = (1, -1) + (1,) * (len(node.shape) - 2)
    factor = 1 / (var.double() + eps).sqrt()
    factor = factor if weight is None else factor * weight.double()
    shift = -mean.double() * factor
    size = shift.abs()
    if bias is not None:
        shift, size = shift + bias.double(), size + bias.double().abs()
    kind = mean.dtype
    return Scale(factor.to(kind).view(shape), shift.to(kind).view(shape), size.to(kind).view(shape))


@maps(slopes.batch_norm_back)
def batch_norm_back(program: Program, node: Node, source: int) -> LinearMap | None:
    """Each channel times a constant."""
    weight, var = (_value(program, a) for a in node.args[1:3])
    if node.args[0] != Ref(source) or isinstance(weight, Interval) or isinstance(var, Interval):
        return None
    factor = 1 / (var.double() + node.args[3]).sqrt()
    factor = factor if weight is None else factor * weight.double()
    return Scale(factor.to(var.dtype).view(1, -1, *(1,) * (len(node.shape) - 2)), None, None)


@maps(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.neg.default)
def scale(program: Program, node: Node, source: int) -> LinearMap | None:
    """Entries times constants."""
    if node.op is aten.neg.default:
        other: Any = -1.0
    else:
        divides = node.op is aten.div.Tensor
        if divides and node.args[0] != Ref(source):
            return None
        others = [a for a in node.args if a != Ref(source)]
        if len(others) != 1 or node.kwargs:
            return None
        other = _value(program, others[0])
        if other is None or isinstance(other, Interval):
            return None
        other = 1 / torch.as_tensor(other).double() if divides else other
    factor = torch.as_tensor(other, dtype=program.dtype, device=node.device)
    if math.prod(node.shape) != math.prod(program.graph.nodes[source].shape):
        return None  # broadcasting enlarges x
    return Scale(factor, None, None)


@maps(aten.rsub.Scalar)
def subtract_from(program: Program, node: Node, source: int) -> LinearMap | None:
    """`other - alpha * x`."""
    _, other, *alpha = node.args
    here: dict[str, Any] = {"dtype": program.dtype, "device": node.device}
    factor = torch.tensor(-float(alpha[0] if alpha else 1.0), **here)
    shift = torch.tensor(float(other), **here)
    return Scale(factor, shift, shift.abs())


@maps(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor)
def add(program: Program, node: Node, source: int) -> LinearMap | None:
    """Sums of two inputs, or of one and a constant."""
    first, second = node.args[:2]
    alpha = float(node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1.0))
    sign = -alpha if node.op is aten.sub.Tensor else alpha
    if program.graph.nodes[source].shape != node.shape or first == second:
        return None
    other = _value(program, second if first == Ref(source) else first)
    if isinstance(other, Interval):
        return None
    here: dict[str, Any] = {"dtype": program.dtype, "device": node.device}
    one = torch.ones((), **here)
    factor = one if first == Ref(source) else one * sign
    if other is None:
        return Scale(factor, None, None)
    shift = torch.as_tensor(other, **here) * (sign if first == Ref(source) else 1.0)
    return Scale(factor, shift, shift.abs())

"""Batch norm, and any other scale by channel, folded into the layer before it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from certify.graph import Node
from certify.maps import Convolution, LinearMap, Matrix, Scale, affine
from certify.program import Program
from certify.sparse_map import LARGEST, REACH


def fold(program: Program) -> None:
    """Make one map of each layer and the scale by channel that alone uses its result.

    The layer's node leaves the program, so no bounds of it are known afterwards; the scale's node
    takes the layer's input as its own. Only where constants stay as they are, and are points.
    """
    users: dict[int, int] = {program.output: 1}
    for node in program.nodes:
        for index in set(node.inputs):
            users[index] = users.get(index, 0) + 1
    calls = {node.index: node for node in program.nodes}
    for node in program.nodes:
        parts = affine(program, node)
        if parts is None or len(parts) != 1:
            continue
        layer, scale = parts[0]
        before = calls.get(layer)
        if not isinstance(scale, Scale) or before is None or users[layer] != 1:
            continue
        if not (program.apart(node) and program.apart(before)):
            continue
        inner = affine(program, before)
        if inner is None or len(inner) != 1:
            continue
        source, linear = inner[0]
        one = _composed(linear, scale, before)
        if one is None:
            continue
        del calls[layer]
        calls[node.index] = replace(node, inputs=(source,))
        program.cache[node.index, "affine"] = [(source, one)]
    program.nodes = tuple(calls[index] for index in sorted(calls))


def _composed(linear: LinearMap, scale: Scale, layer: Node) -> LinearMap | None:
    """The one map; None where it is not by channel, or rounding makes it something else."""
    channels = layer.shape[1] if len(layer.shape) > 1 else 0
    shape = (1, channels, *(1,) * (len(layer.shape) - 2))
    parts = (scale.factor, scale.bias, scale.bias_size)
    if linear.slack is not None or scale.slack is not None:
        return None
    if not isinstance(linear, Matrix | Convolution):
        return None  # its bias may be of any shape
    if not _tame(linear, scale):
        return None
    if any(part is not None and part.shape != shape and part.numel() != 1 for part in parts):
        return None
    factor, shift, size = (None if p is None else p.double().flatten() for p in parts)
    assert factor is not None
    bias = _sum(_product(linear.bias, factor), shift, channels)
    bias_size = _sum(_product(linear.bias_size, factor.abs()), size, channels)
    kind = scale.factor.dtype
    bias = None if bias is None else bias.to(kind)
    bias_size = None if bias_size is None else bias_size.to(kind)
    found: Matrix | Convolution
    if isinstance(linear, Matrix):
        weight = (linear.weight.double() * factor).to(kind)
        found = Matrix(weight, bias, bias_size)
    elif isinstance(linear, Convolution) and not linear.transposed:
        by_kernel = factor.view(-1, *(1,) * (linear.weight.dim() - 1))
        weight = (linear.weight.double() * by_kernel).to(kind)
        found = Convolution(weight, bias, bias_size, linear.settings, linear.shape)
    else:
        return None
    if not all(bool(t.isfinite().all()) for t in (weight, bias, bias_size) if t is not None):
        return None
    # the model rounds twice: the sum of the layer, then the scale's product and sum
    found.terms += scale.terms
    found.spread += scale.spread
    return found


_STEEP = 2.0**40
"""A scale up to which it does not bring up what underflows in the layer before."""


def _tame(linear: Matrix | Convolution, scale: Scale) -> bool:
    """Whether the layer cannot overflow or underflow unseen: bounds of its own are given up."""
    weight = linear.weight.double().abs()
    most = float((weight.T if isinstance(linear, Matrix) else weight).flatten(1).sum(1).max())
    if linear.bias_size is not None:
        most += float(linear.bias_size.double().max()) / REACH
    return most * REACH <= LARGEST and float(scale.factor.abs().max()) <= _STEEP


def _product(value: Tensor | None, factor: Tensor) -> Tensor | None:
    return None if value is None else value.double().flatten() * factor


def _sum(first: Tensor | None, second: Tensor | None, channels: int) -> Tensor | None:
    total = [value for value in (first, second) if value is not None]
    return torch.stack([v.expand(channels) for v in total]).sum(0) if total else None

"""Batch norm folded into the convolution or matrix before it: one map instead of two."""

from __future__ import annotations

import torch
from torch import Tensor

from certify.graph import Node
from certify.maps import Convolution, LinearMap, Matrix, Scale, affine
from certify.program import Program


def fold(program: Program) -> None:
    """Replace pairs of calls in a program whose constants stay as they are.

    The first call of a pair must serve the second alone; it vanishes from the program. What the
    model rounds (product, normalisation) and what we round (the folded weights) is covered by a
    few terms more in the sum, and by the magnitudes of all that is added.
    """
    users: dict[int, int] = {}
    for node in program.nodes:
        for index in node.inputs:
            users[index] = users.get(index, 0) + 1
    calls = {node.index: node for node in program.nodes}
    gone: set[int] = set()
    for node in program.nodes:
        last = _only(program, node)
        if last is None or not isinstance(last[1], Scale):
            continue
        source, second = last[0], last[1]
        if source not in calls or users[source] != 1 or source == program.output:
            continue
        first = _only(program, calls[source])
        both = None if first is None else _both(first[1], second, node)
        if first is not None and both is not None:
            program.cache[(node.index, "affine")] = [(first[0], both)]
            gone.add(source)
    program.nodes = tuple(node for node in program.nodes if node.index not in gone)


def _only(program: Program, node: Node) -> tuple[int, LinearMap] | None:
    parts = affine(program, node)
    return parts[0] if parts is not None and len(parts) == 1 else None


def _both(first: LinearMap, second: Scale, node: Node) -> LinearMap | None:
    """The product of two maps, or None if it is no map of the first's kind."""
    if first.slack is not None or second.slack is not None:
        return None
    channels = node.shape[1]
    if second.factor.numel() not in (1, channels):
        return None
    factor = second.factor.double().flatten()
    if isinstance(first, Convolution) and not first.transposed:
        weight = first.weight.double() * factor.view(-1, *(1,) * (first.weight.dim() - 1))
    elif isinstance(first, Matrix) and len(node.shape) == 2:
        weight = first.weight.double() * factor
    else:
        return None
    kind = second.factor.dtype
    shift, size = (
        _sum(first_part, second_part, scale, channels)
        for first_part, second_part, scale in (
            (first.bias, second.bias, factor),
            (first.bias_size, second.bias_size, factor.abs()),
        )
    )
    bias = None if shift is None else shift.to(kind)
    bias_size = None if size is None else size.to(kind)
    found: LinearMap
    if isinstance(first, Convolution):
        found = Convolution(weight.to(kind), bias, bias_size, first.settings, first.shape)
    else:
        found = Matrix(weight.to(kind), bias, bias_size)
    found.terms, found.spread = first.terms + 8, first.spread + 8
    return found


def _sum(
    first: Tensor | None, second: Tensor | None, factor: Tensor, channels: int
) -> Tensor | None:
    """`first * factor + second`, by channel."""
    if first is None and second is None:
        return None
    total = torch.zeros(channels, dtype=torch.float64, device=factor.device)
    if first is not None:
        total = total + first.double().flatten() * factor
    if second is not None:
        total = total + second.double().flatten()
    return total

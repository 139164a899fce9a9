"""Which ATen calls move entries or add them up: matrices of zeros, ones and shares."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from certify import slopes
from certify.graph import Node, Ref
from certify.interval import Interval
from certify.maps import LinearMap, Rearrangement, maps
from certify.program import Program

aten = torch.ops.aten

MOVES: frozenset[Any] = frozenset(
    {
        aten.reshape.default,
        aten.t.default,
        aten.transpose.int,
        aten.permute.default,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.slice.Tensor,
        aten.select.int,
        aten.expand.default,
        aten.repeat.default,
        aten.cat.default,
        aten.stack.default,
        aten.flip.default,
        aten.roll.default,
        aten.slice_scatter.default,
        aten.select_scatter.default,
        aten.copy.default,
        aten.pixel_shuffle.default,
        aten.pixel_unshuffle.default,
        aten.channel_shuffle.default,
        aten.im2col.default,
        aten.reflection_pad1d.default,
        aten.reflection_pad2d.default,
        aten.reflection_pad3d.default,
        aten.replication_pad1d.default,
        aten.replication_pad2d.default,
        aten.replication_pad3d.default,
        aten.upsample_nearest1d.default,
        aten.upsample_nearest2d.default,
        aten.upsample_nearest3d.default,
        aten._upsample_nearest_exact2d.default,
        aten.constant_pad_nd.default,
        aten.index.Tensor,
        aten.index_select.default,
        aten.gather.default,
        aten.where.self,
        aten.masked_fill.Scalar,
        aten.masked_fill.Tensor,
        aten.slice_backward.default,
        aten.select_backward.default,
        aten.tril.default,
        aten.triu.default,
    }
)
"""Calls whose entries are entries of their arguments, or constants."""

_WEIGHTS = {aten.index.Tensor: 1, aten.where.self: 0, aten.masked_fill.Scalar: 1}
_WEIGHTS |= {aten.masked_fill.Tensor: 1, aten.gather.default: 2, aten.index_select.default: 2}
"""The argument that must not depend on the input, if there is one: masks and indices."""


@maps(*MOVES)
def rearrangement(program: Program, node: Node, source: int) -> LinearMap | None:
    """Entries moved, repeated or dropped, exactly; the transpose may add repeated ones up."""
    if any(isinstance(program.constants.get(i), Interval) for i in node.inputs):
        return None
    choice = node.args[_WEIGHTS[node.op]] if node.op in _WEIGHTS else ()
    chosen = choice if isinstance(choice, tuple) else (choice,)
    if any(isinstance(c, Ref) and c.index not in program.constants for c in chosen):
        return None
    linear = None
    if node.op is aten.constant_pad_nd.default and len(node.args) > 2 and node.args[2]:
        linear = replace(node, args=(*node.args[:2], 0.0))
    if node.op is aten.masked_fill.Scalar:
        linear = replace(node, args=(*node.args[:2], 0.0))
    before, after = math.prod(program.graph.nodes[source].shape), math.prod(node.shape)
    spread = after if after > before or node.op in _REPEATING else 0
    return Rearrangement(program, node, source, 0, spread, linear)


_REPEATING = {aten.index.Tensor, aten.index_select.default, aten.gather.default}
_REPEATING |= {op for op in MOVES if "pad" in str(op) or "upsample" in str(op)}
_REPEATING |= {aten.im2col.default, aten.cat.default, aten.stack.default}
"""Calls that may use an entry more than once even where their result is no larger."""


@maps(
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
    aten.mean.dim,
    aten.sum.dim_IntList,
    aten.cumsum.default,
    aten.upsample_linear1d.default,
    aten.upsample_bilinear2d.default,
    aten.upsample_nearest1d_backward.default,
    aten.upsample_nearest2d_backward.default,
    slopes.avg_pool_back,
    slopes.adaptive_avg_pool_back,
)
def sums(program: Program, node: Node, source: int) -> LinearMap | None:
    """Sums and means of windows, with weights that are not negative."""
    before, after = program.graph.nodes[source].shape, node.shape
    if node.op in _WINDOWS:
        terms = math.prod(node.args[1])
    elif node.op is slopes.avg_pool_back:
        terms = math.prod(node.args[2])
    elif node.op is aten.cumsum.default or "linear" in str(node.op):
        terms = max(before)
    else:  # windows that need not be of one size
        terms = 2 ** (len(before) - 2) * math.ceil(math.prod(before) / math.prod(after))
    spread = max(terms, math.prod(after[2:]) if len(after) > 2 else 1)
    return Rearrangement(program, node, source, terms + 2, spread + 2)


_WINDOWS = {aten.avg_pool2d.default, aten.avg_pool3d.default}


@maps(aten._to_copy.default)
def widened(program: Program, node: Node, source: int) -> LinearMap | None:
    """A change to a type that holds every value of the one before."""
    kind, old = node.dtype, program.graph.nodes[source].dtype
    if kind is None or old is None or torch.promote_types(kind, old) != kind:
        return None
    return Rearrangement(program, node, source, 0, 0)

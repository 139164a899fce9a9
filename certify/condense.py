"""Sparse networks made small before they are bounded: fewer neurons, weights as sparse matrices.

In a chain of layers with functions of single entries between them, layers of few weights become
sparse matrices on single neurons (convolutions are unrolled). Then neurons go whose value is the
same for every input (no weight from any that varies): what they add to the next layer goes into its
bias. So do neurons that nothing uses. Values before and after the chain stay as they are.

Rounding. The model sums products with weights that are zero too, which is exact: a sum errs by what
it has of others, constants included, so these still count in `terms` and in `bias_size`. A constant
is an interval, by the rules of the interval domain; `bias_size` grows by its radius over 8 units of
rounding, as whatever uses it charges more than 8 units of it. A neuron that is gone could still
overflow in the model, and spoil its sums: so it only goes where that cannot be for inputs up to
`REACH`, and for others a sparse matrix gives NaN.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags_array
from torch import Tensor

from certify.graph import Node, Ref, Size
from certify.interval import Interval, as_interval
from certify.lines import LINES
from certify.maps import Convolution, LinearMap, Matrix, affine
from certify.program import Program
from certify.propagate import bound
from certify.rounding import OFF, Rounding
from certify.sparse_map import REACH, Pattern, SparseMatrix
from certify.unroll import Csr, entries, unrolled

aten = torch.ops.aten

DENSITY = 0.1
"""Share of weights that are not zero up to which a sparse matrix wins. An MLP 3x512 at 10% is
bounded 1.3, 1.2 and 4.2 times as fast by IBP, CROWN-IBP and CROWN; at 20% 0.7, 0.8 and 1.1 times.
"""
CONVOLUTION = 0.3
"""The same for convolutions: the small CNN at 20% is bounded 1.0, 1.0 and 2.6 times as fast. First
layers have few weights, and in a network at 99% may well have a quarter of them.
"""
LEAST = 1 << 18
"""Products of a dense layer from which on it is worth it: an MLP 3x256 gets no faster, 3x512 does.
"""
_MOST_ENTRIES = 1 << 22
"""Entries of a matrix up to which it is written out."""
_LARGEST = 2.0**120
"""What no neuron may exceed for inputs up to `REACH`: far from overflow in float32."""

Vector = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(eq=False)
class _Stage:
    """A layer and the functions of single entries behind it.

    Attributes:
        node: The layer's call.
        linear: Its map.
        after: The functions' calls.
        out: Shape of one sample's value.
        matrix: (out, in), float64; later without what is gone.
        bias: float64, (out,).
        size: What rounding of the bias is relative to.
        terms: Most products summed for one entry, in the model.
    """

    node: Node
    linear: Matrix | Convolution
    after: list[Node]
    out: tuple[int, ...]
    matrix: Csr
    bias: Vector
    size: Vector
    terms: int


def condense(program: Program) -> Program:
    """Return a program that bounds the same function with less work, or the program itself.

    Node indices stay; calls that are gone have no value. Only on the CPU, where sparse products are
    MKL's; programs on other devices, and such as have no layers with few weights, stay.
    """
    weights = [v for v in program.constants.values() if isinstance(v, Tensor)]
    mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if not mkl or any(v.device.type != "cpu" for v in weights):
        return program
    for chain in _chains(program):
        if _behind_convolution(program, chain):
            continue
        stages = _stages(program, chain)
        if stages:
            program = _condensed(program, chain, stages)
    return program


def _behind_convolution(program: Program, chain: list[Node]) -> bool:
    """Whether a convolution of many weights lies before a chain.

    Rows that leave the chain's sparse matrices are written out in full there, where those of an
    ordinary convolution would still be windows: 21 times the work of CROWN at 10% of the weights of
    a small CNN whose first layer is dense.
    """
    return any(
        isinstance(part, Convolution) and not _few(part)
        for node in program.nodes
        if node.index < chain[0].index
        for _, part in affine(program, node) or ()
    )


def _chains(program: Program) -> list[list[Node]]:
    """Runs of calls of which each alone uses the one before."""
    users: dict[int, int] = {program.output: 1}
    for node in program.nodes:
        for index in set(node.inputs):
            users[index] = users.get(index, 0) + 1
    chains: list[list[Node]] = []
    ends: dict[int, list[Node]] = {}
    for node in program.nodes:
        if not _fits(program, node):
            continue
        (source,) = (i for i in node.inputs if i not in program.constants)
        chain = ends.pop(source, None) if users[source] == 1 else None
        if chain is None:
            chain = []
            chains.append(chain)
        chain.append(node)
        ends[node.index] = chain
    return chains


def _fits(program: Program, node: Node) -> bool:
    """Whether a call is a layer, a function of single entries, or another view of them."""
    sources = [i for i in node.inputs if i not in program.constants]
    if len(sources) != 1 or not program.apart(node):
        return False
    if node.shape[0] != 2 or program.graph.nodes[sources[0]].shape[0] != 2:
        return False
    if node.op is aten.reshape.default:
        return True
    parts = affine(program, node)
    if parts is None:
        same = program.shape(sources[0]) == program.shape(node.index)
        return (
            node.op in LINES
            and same
            and node.inputs == (sources[0],)
            and node.args[0] == Ref(sources[0])
        )
    return len(parts) == 1 and _layer(parts[0][1], node)


def _layer(linear: LinearMap, node: Node) -> bool:
    if linear.slack is not None:
        return False
    if isinstance(linear, Matrix):
        return len(node.shape) == 2
    plain = isinstance(linear, Convolution) and linear.plain and len(linear.shape) == 3
    return plain and _few(linear)


def _few(linear: LinearMap) -> bool:
    """Whether a layer has few weights, and enough of them for that to matter."""
    assert isinstance(linear, Matrix | Convolution)
    share = int(torch.count_nonzero(linear.weight)) / max(1, linear.weight.numel())
    most = DENSITY if isinstance(linear, Matrix) else CONVOLUTION
    return share <= most and entries(linear) <= _MOST_ENTRIES


def _large(linear: LinearMap) -> bool:
    assert isinstance(linear, Matrix | Convolution)
    places = 1 if isinstance(linear, Matrix) else int(np.prod(linear.shape[1:]))
    return linear.weight.numel() * places >= LEAST


def _stages(program: Program, chain: list[Node]) -> list[_Stage]:
    """The layers of a chain from its first one with few weights; none if that is not worth it."""
    stages: list[_Stage] = []
    for node in chain:
        parts = affine(program, node)
        if node.op is aten.reshape.default:
            continue
        if parts is None:
            if stages:
                stages[-1].after.append(node)
            continue
        linear = parts[0][1]
        assert isinstance(linear, Matrix | Convolution)
        if stages or _few(linear):
            stages.append(_stage(program, node, linear))
    return stages if any(_few(s.linear) and _large(s.linear) for s in stages) else []


def _stage(program: Program, node: Node, linear: Matrix | Convolution) -> _Stage:
    out = program.shape(node.index)
    matrix = unrolled(linear, out)

    def spread(value: Tensor | None) -> Vector:
        if value is None:
            return np.zeros(matrix.shape[0])
        return value.double().expand(1, *out).reshape(-1).numpy()

    taken = int(np.diff(matrix.indptr).max(initial=0))
    weight = linear.weight
    dense = weight.shape[0] if isinstance(linear, Matrix) else weight[0].numel()
    terms = taken + linear.terms - dense + 1  # more where batch norm was folded in
    return _Stage(
        node, linear, [], out, matrix, spread(linear.bias), spread(linear.bias_size), terms
    )


def _condensed(program: Program, chain: list[Node], stages: list[_Stage]) -> Program:
    """The program with a chain's layers made small; unchanged where numbers are too large."""
    if not _bounded(program, stages):
        return program
    _fold_constants(program, stages)
    if not all(np.isfinite(s.bias).all() and np.isfinite(s.size).all() for s in stages):
        return program
    _drop_unused(stages)
    nodes, calls = list(program.graph.nodes), {node.index: node for node in program.nodes}
    cache = dict(program.cache)
    before = first = next(i for i in stages[0].node.inputs if i not in program.constants)
    last = (stages[-1].after or [stages[-1].node])[-1].index
    for node in chain:
        if first < node.index < last:
            del calls[node.index]
    shape = program.shape(before)
    for stage in stages:
        out = program.shape(last) if stage is stages[-1] else (len(stage.bias),)
        found = _map(stage, (shape, out), program.dtype)
        cache[stage.node.index, "affine"] = [(before, found)]
        for node in (stage.node, *stage.after):
            args = node.args if node is stage.node else (Ref(before), *node.args[1:])
            sizes: tuple[int | Size, ...] = (Size(1, 0), *out)
            made = replace(node, inputs=(before,), args=args, shape=(2, *out), sizes=sizes)
            nodes[node.index] = calls[node.index] = made
            before = node.index
        shape = out
    ordered = tuple(calls[index] for index in sorted(calls))
    graph = replace(program.graph, nodes=tuple(nodes))
    return replace(program, graph=graph, nodes=ordered, cache=cache)


def _bounded(program: Program, stages: list[_Stage]) -> bool:
    """Whether no neuron gets near overflow for inputs up to `REACH`."""
    reach = REACH
    for stage in stages:
        steepest = float(abs(stage.matrix).sum(1).max())
        reach = steepest * reach + float(stage.size.max(initial=0.0))
        for node in stage.after:
            if not reach <= _LARGEST:
                return False
            end = torch.full((1, 1), reach, dtype=program.dtype)
            value = bound(program, node, {node.inputs[0]: Interval(-end, end)}, OFF, 1)
            reach = float(as_interval(value).magnitude)
    return reach <= _LARGEST


def _fold_constants(program: Program, stages: list[_Stage]) -> None:
    """Move what constant neurons add into biases."""
    rounding = Rounding.of(program.dtype)
    for stage, later in itertools.pairwise(stages):
        constant = _inputs_of_rows(stage.matrix) == 0
        low, high = _at_zero(program, stage, rounding)
        middle, radius = (low + high) / 2, (high - low) / 2
        part = later.matrix[:, constant]
        later.bias = later.bias + part @ middle[constant]
        size = abs(middle) + radius * (1 + 2**-40) / (8 * rounding.unit)
        later.size = later.size + abs(part) @ size[constant]
        later.matrix = csr_matrix(later.matrix @ diags_array((~constant).astype(float)))
        later.matrix.eliminate_zeros()


def _at_zero(program: Program, stage: _Stage, rounding: Rounding) -> tuple[Vector, Vector]:
    """Ends of the values that a stage's neurons have if nothing comes in."""
    error = 2.1 * rounding.gamma(stage.terms + 8) * stage.size + rounding.tiny
    kind = program.dtype
    below, above = (
        torch.from_numpy(b)[None].to(kind) for b in (stage.bias - error, stage.bias + error)
    )
    value = Interval(below, above).widened(torch.finfo(kind).eps, 0.0)
    for node in stage.after:
        value = as_interval(bound(program, node, {node.inputs[0]: value}, rounding, 1))
    low, high = (end[0].double().numpy() for end in (value.lower, value.upper))
    return low, high


def _drop_unused(stages: list[_Stage]) -> None:
    """Take out neurons that are constant or used by none; one of each layer stays in any case."""
    for stage, later in reversed(list(itertools.pairwise(stages))):
        keep = (_inputs_of_rows(later.matrix.T) != 0) & (_inputs_of_rows(stage.matrix) != 0)
        keep[0] |= not keep.any()
        later.matrix = later.matrix[:, keep]
        stage.matrix, stage.bias, stage.size = (
            stage.matrix[keep],
            stage.bias[keep],
            stage.size[keep],
        )


def _inputs_of_rows(matrix: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Number of entries of each row."""
    return np.diff(csr_matrix(matrix).indptr)


def _map(
    stage: _Stage,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    kind: torch.dtype,
) -> LinearMap:
    matrix = stage.matrix
    matrix.sort_indices()
    bias = torch.from_numpy(stage.bias).to(kind)
    size = torch.from_numpy(stage.size * (1 + 2**-20)).to(kind)
    flat = len(shapes[0]) == len(shapes[1]) == 1
    found: Matrix | SparseMatrix
    if flat and matrix.nnz > DENSITY * np.prod(matrix.shape):
        found = Matrix(torch.from_numpy(matrix.toarray().T).to(kind).contiguous(), bias, size)
    else:
        first, column = (torch.from_numpy(i).int() for i in (matrix.indptr, matrix.indices))
        rows, columns = matrix.shape
        pattern = Pattern(first, column, (rows, columns))
        weight = torch.from_numpy(matrix.data).to(kind)
        found = SparseMatrix(pattern, weight, bias, size, shapes)
    found.spread += max(0, stage.terms - found.terms)
    found.terms = stage.terms
    return found

"""CROWN and CROWN-IBP: the analysis of a program over sets of inputs, and bounds of its output.

CROWN (Zhang et al., NeurIPS 2018) bounds each nonlinearity's input by the linear domain before its
lines are drawn; CROWN-IBP (Zhang et al., ICLR 2020) takes intervals for that, and the linear domain
for the output alone. Here every interval is the intersection of both, and only entries that are
still open are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import replace

import torch
from torch import Tensor

import certify.choices
import certify.curve_table
import certify.products  # noqa: F401  # registers lines and steps
from attacks import memory
from certify import scattered
from certify.ball import InputSet
from certify.columns import arranged
from certify.graph import Node
from certify.interval import Interval, as_interval
from certify.linear import Analysis, Lines, Rows, lower_bounds
from certify.lines import LINES
from certify.maps import Convolution, Scale, Weighted, affine, over
from certify.program import Program
from certify.propagate import bound
from certify.rounding import Rounding
from certify.slopes import step
from certify.specification import Specification
from certify.steps import STEPS, Call
from certify.windows import Windows

_CHUNK_BYTES = 48 << 20
"""Memory for the rows of one pass."""


def analyse(
    program: Program,
    inputs: InputSet,
    *,
    tighten: bool,
    lines: bool = True,
    rounding: Rounding | None = None,
    within: Mapping[int, Interval] | None = None,
    points: Mapping[str, Tensor] | None = None,
    skip: Container[int] = frozenset(),
) -> Analysis:
    """Bound every node of a program, and draw lines.

    Args:
        program: A bound program with the input `x`.
        inputs: Sets of inputs.
        tighten: Bound nonlinearities' inputs by the linear domain too (CROWN), not by intervals
            alone (CROWN-IBP).
        lines: Draw lines; without them every call that is not affine is cut: interval bounds, the
            last affine calls folded in.
        rounding: What to allow for rounding; None for that of the inputs' type.
        within: Intervals that some nodes are known to lie in, such as those of larger sets.
        points: Values of the program's other inputs, (n, *shape).
        skip: Calls to bound by intervals alone; no pass may start behind them.

    Raises:
        UnsupportedError: An operation has no rule.
    """
    x = program.inputs["x"]
    known = Analysis(
        program, inputs, {x: inputs.box}, rounding=rounding or Rounding.of(inputs.box.lower.dtype)
    )
    depth = {x: 0 if inputs.center is None else 1}
    for name, point in (points or {}).items():
        known.values[program.inputs[name]] = Interval.point(point)
        depth[program.inputs[name]] = 0
    users = _users(program)
    end = set() if lines else _end(program)
    done: dict[int, Tensor] = {}
    fresh: set[int] = set()
    reuse = not lines and within is None and not torch.is_grad_enabled()

    def tightened(source: int, open_: Tensor, drop: bool = False) -> Interval:
        box = as_interval(known.values[source])
        if not tighten or depth[source] <= 1:
            return box
        before = done.get(source)
        open_now = open_ if before is None else open_ & ~before
        box = _tightened(known, source, box, open_now, drop)
        known.values[source] = box
        done[source] = open_ if before is None else open_ | before
        return box

    for node in program.nodes:
        lines_here = lines and program.apart(node) and node.index not in skip
        relaxation = LINES.get(node.op) if lines_here else None
        stepping = STEPS.get(node.op) if lines_here else None
        if relaxation is not None and _lined(program, node):
            (source,) = _sources(program, node)
            box = as_interval(known.values[source])
            drop = all(_by_sign(user) for user in users[source])
            box = tightened(source, relaxation.open(node, box), drop)
            known.lines[node.index] = _with_errors(known, source, relaxation.lines(node, box))
        elif stepping is not None and affine(program, node) is None:
            call = Call(program, node, known.values, known.rounding)
            if tighten:
                for source, open_ in stepping.open(call).items():
                    tightened(source, open_)
            if (step := stepping.make(call)) is not None:
                known.steps[node.index] = step
        if reuse:
            _spare(known, node, users, end, fresh)
        value = bound(program, node, known.values, known.rounding, len(inputs))
        if within is not None and node.index in within:
            value = as_interval(value) & within[node.index]
        known.values[node.index] = value
        depth[node.index] = _depth(program, node, depth)
        if lines:
            _errors(known, node, users)
        else:  # memory that is freed at once is used again while it is warm
            for index in set(node.inputs) - end:
                if index in known.values and users[index][-1] is node:
                    del known.values[index]
    if not lines:
        for node in program.nodes:
            if node.index in end:
                _errors(known, node, users)
    return known


def output_bounds(known: Analysis, specification: Specification) -> Tensor:
    """Bound the rows of a specification from below: float64, (n, rows).

    Never below the interval bounds: lines of least area may lose to them.

    Args:
        known: The analysis of the program.
        specification: Rows for each sample, of the program's outputs.
    """
    count = specification.coefficients.shape[1]
    rows = Rows.evenly(len(known.inputs), count, specification.coefficients.device)
    flat = specification.coefficients.flatten(0, 1)
    flat = flat.view(-1, *known.program.shape(known.program.output))
    start = arranged(known.program, flat, len(known.inputs))
    output = known.program.output
    found = lower_bounds(replace(known, lines={}, steps={}), output, start, rows)
    if known.lines or known.steps:
        found = torch.maximum(found, lower_bounds(known, output, start, rows))
    return found.view(-1, count) + specification.offset.double()


def _spare(
    known: Analysis, node: Node, users: Mapping[int, list[Node]], end: set[int], fresh: set[int]
) -> None:
    """Let a call write over what it alone is left to use; note if its own value is new memory."""
    alone = [i for i in node.inputs if i in fresh and len(users[i]) == 1 and i not in end]
    for index in alone:  # with other users, there may be views
        known.values[index] = replace(as_interval(known.values[index]), spare=True)
    parts = affine(known.program, node)
    layer = parts is not None and len(parts) == 1 and isinstance(parts[0][1], Weighted)
    aten = torch.ops.aten
    if layer or node.op is aten.relu.default or (node.op is aten.reshape.default and alone):
        fresh.add(node.index)


def _users(program: Program) -> Mapping[int, list[Node]]:
    users: dict[int, list[Node]] = {}
    for node in program.nodes:
        for index in node.inputs:
            users.setdefault(index, []).append(node)
    return users


def _sources(program: Program, node: Node) -> list[int]:
    return [i for i in node.inputs if i not in program.constants]


def _lined(program: Program, node: Node) -> bool:
    """Whether a call gets lines, which take up what rounding does to its input."""
    return node.op in LINES and len(_sources(program, node)) == 1 and program.apart(node)


def _by_sign(node: Node) -> bool:
    """Whether a call's lines depend on the sign of what it takes alone, where that is known."""
    return node.op is torch.ops.aten.relu.default or (node.op is step and node.args[1] == 0)


def _depth(program: Program, node: Node, depth: Mapping[int, int]) -> int:
    """How many maps lie between inputs and a node; up to 1, its interval is as good as any."""
    parts = affine(program, node)
    if parts is None or len(parts) != 1:
        return 2
    source, linear = parts[0]
    return depth[source] + (0 if isinstance(linear, Scale) or not linear.terms else 1)


def _end(program: Program) -> set[int]:
    """The nodes that a pass from the output comes by before it is cut, and where it is."""
    reached = {program.output}
    for node in reversed(program.nodes):
        if node.index not in reached or not program.apart(node):
            continue
        if (parts := affine(program, node)) is not None:
            reached.update(source for source, _ in parts)
    return reached


def _errors(known: Analysis, node: Node, users: Mapping[int, list[Node]]) -> None:
    """Note what rounding may add to an affine call, forwards and on the way back."""
    parts = affine(known.program, node) if known.program.apart(node) else None
    if parts is None or not known.rounding.unit:
        return
    total: Tensor | None = None
    for source, linear in parts:
        size = as_interval(known.values[source]).magnitude
        gamma = known.rounding.gamma(linear.terms + linear.spread + 8)
        if linear.terms + linear.spread == 0:
            continue
        share = linear.apply_abs(size, 1.0) * (1.1 * gamma)
        if linear.bias_size is not None:  # the sum of row times bias
            count = math.prod(node.shape[1:]) + 8
            bias = over(linear.bias_size, share)
            share = share + bias * (1.1 * known.rounding.gamma(count))
        if linear.slack is not None:
            share = share + linear.slack.apply_abs(size, 1.0) * (1 + 2 * gamma)
        total = share if total is None else total + share
    if total is None:
        return
    known.errors[node.index] = total + known.rounding.tiny
    if all(_lined(known.program, user) for user in users.get(node.index, [])):
        known.absorbed.add(node.index)


def _with_errors(known: Analysis, source: int, lines: Lines) -> Lines:
    """Move lines outwards by what rounding may add to their input and to sums along them."""
    if not known.rounding.unit:
        return lines
    steepest = torch.maximum(lines.lower_slope.abs(), lines.upper_slope.abs())
    size = as_interval(known.values[source]).magnitude
    gamma = known.rounding.gamma(size[0].numel() + 8)
    slop = size * (4 * known.rounding.unit)
    if source in known.absorbed:
        slop = slop + known.errors[source]
    offsets = torch.maximum(lines.lower_offset.abs(), lines.upper_offset.abs())
    slop = torch.where(steepest > 0, steepest * slop, 0.0) + offsets * (3 * gamma)
    return Lines(
        lines.lower_slope,
        lines.lower_offset - slop,
        lines.upper_slope,
        lines.upper_offset + slop,
    )


def _tightened(known: Analysis, node: int, box: Interval, open_: Tensor, drop: bool) -> Interval:
    """Bound the open entries of a node by the linear domain, and intersect."""
    if (together := scattered.tightened(known, node, box, open_)) is not None:
        return together
    samples = len(known.inputs)
    owner, place = open_.reshape(samples, -1).nonzero(as_tuple=True)
    if not len(owner):
        return box
    lower = box.lower.reshape(samples, -1).clone()
    upper = box.upper.reshape(samples, -1).clone()
    size = _rows_at_once(known, node)
    for start in range(0, len(owner), size):
        who, where = owner[start : start + size], place[start : start + size]
        low, high = _both(known, node, who, where, drop)
        lower[who, where] = torch.maximum(lower[who, where], low)
        upper[who, where] = torch.minimum(upper[who, where], high)
    return Interval(lower.view_as(box.lower), upper.view_as(box.upper))


def _both(
    known: Analysis, node: int, owner: Tensor, place: Tensor, drop: bool
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of single entries of a node, rounded outwards to its type."""
    box = as_interval(known.values[node]).lower
    rows = Rows(owner, 2)
    found = _started_in_windows(known, node, rows, place, drop)
    if found is None:
        size = math.prod(known.program.shape(node)) * (box.shape[0] // len(known.inputs))
        unit = box.new_zeros(len(place), 2, size)
        entry = torch.arange(len(place), device=box.device)
        unit[entry, 0, place], unit[entry, 1, place] = 1.0, -1.0
        unit = unit.view(-1, *known.program.shape(node))
        found = lower_bounds(known, node, unit, rows, drop=drop)
    found = found - found.abs() * torch.finfo(box.dtype).eps
    low, high = found.to(box.dtype).view(-1, 2).unbind(1)
    return low, -high


def _started_in_windows(
    known: Analysis, node: int, rows: Rows, place: Tensor, drop: bool
) -> Tensor | None:
    """Bounds of a convolution's neurons, by windows; None where that is not possible."""
    call = known.program.graph.nodes[node]
    parts = affine(known.program, call) if call.op is not None else None
    if parts is None or len(parts) != 1 or not isinstance(parts[0][1], Convolution):
        return None
    if call.shape[0] != 2 or not known.program.apart(call):  # a sample has several images
        return None
    source, linear = parts[0]
    assert isinstance(linear, Convolution)
    shape = known.program.shape(node)
    windows = Windows.of_neurons(linear, place, shape)
    if windows is None:
        return None
    offset = torch.zeros(len(place), 2, dtype=torch.float64, device=place.device)
    if linear.bias is not None:
        bias = linear.bias.flatten()[place // math.prod(shape[1:])].double()
        offset += torch.stack([bias, -bias], 1)
    if (error := known.errors.get(node)) is not None:
        offset -= error.flatten(1)[rows.group, place].double()[:, None]
    return lower_bounds(known, source, windows, rows, offset=offset.flatten(), drop=drop)


def _rows_at_once(known: Analysis, node: int) -> int:
    """Neurons whose two rows fit in memory at every node on the way back."""
    sizes = [math.prod(n.shape) // 2 for n in known.program.nodes if n.index <= node]
    sizes.append(known.inputs.box.lower[0].numel())
    return max(1, memory.room(_CHUNK_BYTES) // (8 * max(sizes)))

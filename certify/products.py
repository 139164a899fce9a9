"""Products of two inputs in the linear domain: McCormick's envelopes.

With (p, q) a corner of the box of (x, y), (x - p)(y - q) keeps its sign over the box, so that
q x + p y - p q is below x y for two of the corners and above it for the others. All four planes
have the same gap in the middle; the one whose slopes, times the radii, are smaller hands on less
of what is not known about x and y. Matrix products take the mean of both, whose slopes are the
middles: then two products of matrices carry all planes back at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from certify.curve_table import power, reciprocal
from certify.curves import enclose
from certify.interval import Interval
from certify.linear import Rows, Step
from certify.lines import hinge_lines
from certify.slope_curves import BENT
from certify.steps import STEPS, Call, Planes, Stepping, aligned, everything

aten = torch.ops.aten

_CLEARLY = 0.999
"""Below which share of the other a plane counts as better: ties must not hang on rounding."""


def _split(x: Interval) -> tuple[Tensor, Tensor]:
    """A point near the middle, and the farthest from it, rounded up."""
    center = x.center
    radius = torch.maximum(x.upper - center, center - x.lower)
    return center, radius * (1 + torch.finfo(center.dtype).eps)


def multiply(call: Call) -> Step | None:
    """Entry by entry; of one input with itself by the lines of the square."""
    if not aligned(call):
        return None
    first, second = call.node.inputs
    unit = call.rounding.unit
    if (gate := _gate(call)) is not None:
        return gated(call, *gate)
    if first == second:
        lines = enclose(power(2), call.box(first))
        error = call.box(first).magnitude ** 2 * (2 * unit)
        offsets = lines.lower_offset, lines.upper_offset
        return Planes(call, (first,), (lines.lower_slope,), (lines.upper_slope,), offsets, error)
    x, y = _spread(call.box(first), call.box(second))
    below, under = _plane(x, y)
    (at_x, at_y), over = _plane(Interval(-x.upper, -x.lower), y)
    above = at_x, -at_y
    error = x.magnitude * y.magnitude * (8 * unit)
    return Planes(call, (first, second), below, above, (under, -over), error)


def _gate(call: Call) -> tuple[int, int] | None:
    """A gradient and the slope of a bent activation that it is multiplied by."""
    first, second = call.node.inputs
    nodes = call.program.graph.nodes
    if call.node.shape != nodes[first].shape or call.node.shape != nodes[second].shape:
        return None
    if nodes[second].op in BENT:
        return first, second
    return (second, first) if nodes[first].op in BENT else None


def gated(call: Call, source: int, slope: int) -> Step:
    """A value g times anything in [p, q]: between min(p g, q g) and max(p g, q g), by chords.

    The one is concave and the other convex (Shi et al., NeurIPS 2022, for p = 0 and q = 1): lines
    of the value alone, for what the slope depends on is bent too often to be of use.
    """
    g, s = call.box(source), call.box(slope)
    found = []
    for pick in (torch.minimum, torch.maximum):
        left, right = (pick(end * s.lower, end * s.upper) for end in (g.lower, g.upper))
        chord = (right - left) / (g.upper - g.lower).clamp(min=torch.finfo(left.dtype).tiny)
        chord = torch.minimum(torch.maximum(chord, s.lower), s.upper)
        chord = torch.where(s.lower == s.upper, s.lower, chord)
        ends = left - chord * g.lower, right - chord * g.upper
        found.append((chord, pick(*ends)))
    (below, under), (above, over) = found
    none = torch.zeros_like(under)
    known = s.lower == s.upper
    offsets = torch.where(known, none, under), torch.where(known, none, over)
    error = g.magnitude * s.magnitude * (16 * call.rounding.unit)
    return Planes(call, (source,), (below,), (above,), offsets, error)


def _plane(x: Interval, y: Interval) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Slopes and offset of a plane below x y: the corner with the smaller slopes for its radii."""
    near = y.lower.abs() * x.radius + x.lower.abs() * y.radius
    far = y.upper.abs() * x.radius + x.upper.abs() * y.radius
    nearer = near < far * _CLEARLY
    at_x = torch.where(nearer, x.lower, x.upper)
    at_y = torch.where(nearer, y.lower, y.upper)
    return (at_y, at_x), -at_x * at_y


def _spread(x: Interval, y: Interval) -> tuple[Interval, Interval]:
    """Both in the shape of the result."""
    shape = [max(sizes) for sizes in zip(x.shape, y.shape, strict=True)]
    return x.each(lambda end: end.expand(shape)), y.each(lambda end: end.expand(shape))


def divide(call: Call) -> Step | None:
    """By a positive input: times its reciprocal, between lines."""
    if not aligned(call) or call.node.kwargs or len(call.sources) != 2:
        return None
    first, second = call.node.inputs
    inverse = enclose(reciprocal(), call.box(second))
    below = call.box(second)
    r = Interval(1 / below.upper, 1 / below.lower).widened(4 * call.rounding.unit, 0.0)
    (cx, rx), (cr, rr) = (_split(x) for x in _spread(call.box(first), r))
    positive = cx > 0
    low_slope = torch.where(positive, inverse.lower_slope, inverse.upper_slope)
    low_offset = torch.where(positive, inverse.lower_offset, inverse.upper_offset)
    high_slope = torch.where(positive, inverse.upper_slope, inverse.lower_slope)
    high_offset = torch.where(positive, inverse.upper_offset, inverse.lower_offset)
    offsets = cx * low_offset - cx * cr - rx * rr, cx * high_offset - cx * cr + rx * rr
    size = (cx.abs() + rx) * (cr.abs() + rr)
    steep = torch.maximum(inverse.lower_offset.abs(), inverse.upper_offset.abs())
    error = (size + cx.abs() * steep) * (16 * call.rounding.unit)
    above = cr, cx * high_slope
    return Planes(call, (first, second), (cr, cx * low_slope), above, offsets, error)


def prelu(call: Call) -> Step | None:
    """Leaky ReLU with constant slopes of its own by channel."""
    source, weight = call.node.inputs
    left = call.program.constants.get(weight)
    if not isinstance(left, Tensor) or source in call.program.constants:
        return None
    lines = hinge_lines(call.box(source), left)
    offsets = lines.lower_offset, lines.upper_offset
    error = call.box(source).magnitude * (4 * call.rounding.unit)
    return Planes(call, (source,), (lines.lower_slope,), (lines.upper_slope,), offsets, error)


def _crossing(call: Call) -> dict[int, Tensor]:
    (source,) = call.sources
    return {source: (call.box(source).lower < 0) & (call.box(source).upper > 0)}


class MatrixProduct(Step):
    """A batched matrix product of two inputs: the planes of all products, summed as matrices."""

    def __init__(self, call: Call) -> None:
        """Take `bmm(x, y)`."""
        self.sources = call.node.inputs
        x, y = (call.box(i) for i in self.sources)
        (self.cx, rx), (self.cy, ry) = _split(x), _split(y)
        rows, terms, columns = *x.lower.shape[1:], y.lower.shape[2]
        gamma = call.rounding.gamma(max(rows, columns) + terms + 8)
        size = torch.bmm(x.magnitude, y.magnitude)
        middle, spread = -torch.bmm(self.cx, self.cy), torch.bmm(rx, ry)
        self.lower, self.upper = call.widened(middle - spread, middle + spread, size * (6 * gamma))

    def back(self, row: Tensor, rows: Rows) -> list[tuple[int, Tensor]]:
        """See `Step`."""
        cx, cy = rows.each_row(self.cx, row), rows.each_row(self.cy, row)
        first, second = self.sources
        return [(first, row @ cy.mT), (second, cx.mT @ row)]


def matrix_product(call: Call) -> Step | None:
    """Of two inputs; a constant factor makes it a map."""
    inputs = call.node.inputs
    if any(i in call.program.constants for i in inputs) or call.node.op is not aten.bmm.default:
        return None
    return MatrixProduct(call)


def _factors(call: Call) -> dict[int, Tensor]:
    """Entries that are no points; of a gradient only those whose slope is not known."""
    open_ = everything(call)
    if len(call.node.inputs) == 2 and (gate := _gate(call)) is not None:
        source, slope = gate
        wide = call.box(slope).lower < call.box(slope).upper
        return {source: open_[source] & wide} if source in open_ else {}
    return open_


STEPS[aten.mul.Tensor] = Stepping(multiply, _factors)
STEPS[aten.div.Tensor] = Stepping(divide)
STEPS[aten.bmm.default] = Stepping(matrix_product)
STEPS[aten._prelu_kernel.default] = Stepping(prelu, _crossing)

"""The gradient through max pooling: windows hand theirs on to the entry that is the largest.

An entry that is larger than all others of its window for sure takes the window's gradient, one that
some other exceeds for sure takes nothing, and any other takes it times something in [0, 1]: at ties
too, where the largest is not one entry (Clarke).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from certify import slopes
from certify.choices import pooled_places
from certify.interval import Interval, as_interval
from certify.linear import Rows, Step
from certify.propagate import Context, Value, rule
from certify.steps import STEPS, Call, Stepping


def _places(shape: tuple[int, ...], out: tuple[int, ...], args: tuple[Any, ...]) -> Tensor:
    """Of each window its entries, counted from 1 in the flattened image; 0 is padding."""
    image = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).view(shape)
    kernel, stride, padding, dilation = args[:4]
    return pooled_places(image, out, kernel, stride or kernel, padding, dilation).long()


def _shares(x: Interval, windows: Tensor) -> Interval:
    """How much of a window's gradient each of its entries takes, (n, windows, entries)."""
    low, high = (
        F.pad(end.flatten(1), (1, 0), value=-torch.inf)[:, windows] for end in (x.lower, x.upper)
    )
    most = _others(high)
    least = _others(low)
    real = windows > 0
    kind = low.dtype
    nan = low.isnan().any(2, keepdim=True) | high.isnan().any(2, keepdim=True)
    taken, possible = (low > most) & real, (high >= least) & real
    return Interval(
        torch.where(nan, torch.nan, taken.to(kind)), torch.where(nan, torch.nan, possible.to(kind))
    )


def _others(values: Tensor) -> Tensor:
    """The largest of the other entries of the window, entry by entry."""
    if values.shape[2] == 1:
        return torch.full_like(values, -torch.inf)
    top = values.topk(2, dim=2)
    places = torch.arange(values.shape[2], device=values.device)
    return torch.where(places == top.indices[..., :1], top.values[..., 1:], top.values[..., :1])


def _scattered(values: Tensor, windows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Add up what entries get of all windows they are in: (n, *shape)."""
    whole = values.new_zeros(len(values), math.prod(shape) + 1)
    whole = whole.scatter_add(1, windows.flatten().expand(len(values), -1), values.flatten(1))
    return whole[:, 1:].reshape(-1, *shape)


@rule(slopes.max_pool_back)
def max_pool_back(context: Context, g: Value, x: Value, *args: Any) -> Interval:
    """Windows of all sizes, overlapping or not."""
    g, x = as_interval(g), as_interval(x)
    shape = tuple(x.shape[1:])
    windows = _places(shape, tuple(g.shape[2:]), args).to(g.lower.device)
    share = _shares(x, windows)
    low, high = g.lower.flatten(1)[:, :, None], g.upper.flatten(1)[:, :, None]
    found = Interval(
        _scattered(torch.minimum(low * share.lower, low * share.upper), windows, shape),
        _scattered(torch.maximum(high * share.lower, high * share.upper), windows, shape),
    )
    if not context.rounding.unit:
        return found
    size = torch.maximum(-low, high) * share.upper
    error = _scattered(size, windows, shape) * context.rounding.gamma(windows.shape[1] + 4)
    return Interval(found.lower - error, found.upper + error)


class Routed(Step):
    """The same by lines of the gradient: chords of g times a share in [0, 1], as for a gate."""

    def __init__(self, call: Call, windows: Tensor) -> None:
        """Take the windows."""
        gradient, x = call.node.inputs[:2]
        self.source, self._windows = gradient, windows
        self._tail = call.program.shape(gradient)
        box, shape = call.box(gradient), call.program.shape(x)
        share = _shares(call.box(x), windows)
        low, high = box.lower.flatten(1)[:, :, None], box.upper.flatten(1)[:, :, None]
        slopes_, offsets = [], []
        for pick in (torch.minimum, torch.maximum):
            left, right = (pick(end * share.lower, end * share.upper) for end in (low, high))
            chord = (right - left) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
            chord = torch.minimum(torch.maximum(chord, share.lower), share.upper)
            known = share.lower == share.upper
            chord = torch.where(known, share.lower, chord)
            offset = pick(left - chord * low, right - chord * high)
            slopes_.append(chord)
            offsets.append(_scattered(torch.where(known, 0.0, offset), windows, shape))
        self._below, self._above = slopes_
        size = _scattered(torch.maximum(-low, high) * share.upper, windows, shape)
        gamma = call.rounding.gamma(2 * windows.shape[1] + 24)
        self.lower, self.upper = call.widened(offsets[0], offsets[1], size * gamma)

    def back(self, row: Tensor, rows: Rows) -> list[tuple[int, Tensor]]:
        """See `Step`."""
        held = F.pad(row.flatten(1), (1, 0))[:, self._windows]
        below, above = (rows.each_row(slope, row) for slope in (self._below, self._above))
        moved = (held.clamp(min=0) * below + held.clamp(max=0) * above).sum(2)
        return [(self.source, moved.reshape(-1, *self._tail))]


def routed(call: Call) -> Step | None:
    """Of images one a row, with a gradient that is no constant."""
    inputs = call.node.inputs
    if any(i in call.program.constants for i in inputs) or len(call.node.shape) != 4:
        return None
    shape, out = call.program.shape(inputs[1]), call.program.shape(inputs[0])
    windows = _places(tuple(shape), tuple(out[1:]), call.node.args[2:])
    return Routed(call, windows.to(call.box(inputs[0]).lower.device))


def _undecided(call: Call) -> dict[int, Tensor]:
    """What is pooled, where it is not a point; the gradient likewise."""
    return {i: call.box(i).lower < call.box(i).upper for i in call.sources}


STEPS[slopes.max_pool_back] = Stepping(routed, _undecided)

"""The largest of several entries in the linear domain: pooling, maxima, minima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from certify.graph import Node
from certify.interval import Interval
from certify.linear import Rows, Step
from certify.steps import STEPS, Call, Planes, Stepping, aligned

aten = torch.ops.aten


def larger(call: Call) -> Step | None:
    """The larger of two entries, x: y + max(x - y, 0), with the chord above; below, x or y."""
    return _larger(call, 1) if aligned(call) else None


def smaller(call: Call) -> Step | None:
    """The smaller of two entries: minus the larger of their opposites."""
    return _larger(call, -1) if aligned(call) else None


def _larger(call: Call, sign: int) -> Step:
    first, second = call.node.inputs
    x, y = call.box(first), call.box(second)
    if sign < 0:
        x, y = Interval(-x.upper, -x.lower), Interval(-y.upper, -y.lower)
    low, high = (x.lower - y.upper).clamp(max=0), (x.upper - y.lower).clamp(min=0)
    share = high / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
    share = torch.where(x.lower >= y.upper, 1.0, share)
    offset = torch.maximum(-share * low, high - share * high)
    chosen = (x.center >= y.center).to(share.dtype)
    size = x.magnitude + y.magnitude
    error = size * (8 * call.rounding.unit)
    hull, pick = (share, 1 - share), (chosen, 1 - chosen)
    none = torch.zeros_like(offset)
    if sign > 0:
        return Planes(call, (first, second), pick, hull, (none, offset), error)
    return Planes(call, (first, second), hull, pick, (-offset, none), error)


def _windows(call: Call) -> Tensor | None:
    """For each entry of the result, the places it is the largest of, int64 (entries, places).

    Places are counted from 1 in the flattened input of a sample; 0 is padding. None: of no such
    form.
    """
    node, (source,) = call.node, call.sources
    shape = call.program.shape(source)
    image = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).view(shape)
    found = _pooled(node, image) if node.op in _POOLS else _reduced(node, image)
    if found is None or len(found) != math.prod(node.shape[1:]):
        return None
    return found.long().to(call.box(source).lower.device)


def _pooled(node: Node, image: Tensor) -> Tensor | None:
    if image.dim() != 3:
        return None
    height, width = image.shape[1:]
    out = node.shape[-2:]
    if node.op is F.adaptive_max_pool2d:
        if height % out[0] or width % out[1]:
            return None  # windows of several sizes
        kernel = step = (height // out[0], width // out[1])
        pad, dilation = (0, 0), (1, 1)
    else:
        given = node.args[1:5]
        settings = [*given, *(None, (), 0, 1)[len(given) :]]
        kernel = _pair(settings[0])
        step = _pair(settings[1]) if settings[1] else kernel
        pad, dilation = _pair(settings[2]), _pair(settings[3])
    return pooled_places(image, out, kernel, step, pad, dilation)


def pooled_places(
    image: Tensor,
    out: Sequence[int],
    kernel: Sequence[int],
    step: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """What each window of an image (channels, height, width) holds, (entries, places).

    Entries are the `out` windows of each channel; what is padded is 0.
    """
    height, width = image.shape[1:]
    reach = [(out[i] - 1) * step[i] + dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    right = [max(0, reach[i] - size - pad[i]) for i, size in enumerate((height, width))]
    image = F.pad(image, (pad[1], right[1], pad[0], right[0]))[:, : reach[0], : reach[1]]
    held = F.unfold(image[:, None], tuple(kernel), dilation=tuple(dilation), stride=tuple(step))
    return held.transpose(1, 2).flatten(0, 1)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _reduced(node: Node, image: Tensor) -> Tensor | None:
    dims = node.args[1] if len(node.args) > 1 else ()
    rank = image.dim() + 1
    dims = {d % rank for d in (dims if isinstance(dims, tuple) else (dims,))}
    if not dims or 0 in dims:
        return None
    kept = [d for d in range(rank - 1) if d + 1 not in dims]
    size = math.prod(image.shape[d] for d in kept)
    return image.permute(*kept, *(d - 1 for d in sorted(dims))).reshape(size, -1)


class Largest(Step):
    """The largest entry of each window.

    Below: the entry with the largest lower end. Above: with i the entry of the largest upper end
    and m the largest of the others' upper ends and of its own lower end, the line in x_i from m at
    its lower end to x_i at its upper: it is at least m, so above the others, and at least x_i. If
    entry i is above all others, that is x_i itself.
    """

    def __init__(self, call: Call, windows: Tensor, sign: int) -> None:
        """Take the windows; with sign -1 it is the smallest."""
        (self.source,) = call.sources
        self._entries = math.prod(call.program.shape(self.source)) + 1
        self._tail = call.program.shape(self.source)
        self._sign = sign
        box = call.box(self.source)
        if sign < 0:
            box = Interval(-box.upper, -box.lower)
        low, high = (F.pad(end.flatten(1), (1, 0), value=-torch.inf) for end in _both(box))
        low, high = low[:, windows], high[:, windows]
        padded = (windows == 0).expand_as(low)
        below = low.argmax(2, keepdim=True)
        above = high.argmax(2, keepdim=True)
        top, bottom = high.gather(2, above)[..., 0], low.gather(2, above)[..., 0]
        others = high.scatter(2, above, -torch.inf).amax(2)
        level = torch.maximum(others, bottom)
        width = top - bottom
        slope = (top - level).clamp(min=0) / width.clamp(min=torch.finfo(width.dtype).tiny)
        self._slope = torch.where(level <= bottom, 1.0, slope.clamp(max=1))
        offset = torch.maximum(level - self._slope * bottom, top - self._slope * top)
        offset = torch.where(level <= bottom, 0.0, offset)
        self._below = windows.expand_as(low).gather(2, below)[..., 0]
        self._above = windows.expand_as(low).gather(2, above)[..., 0]
        size = torch.maximum(low.abs(), high.abs()).masked_fill(padded, 0).amax(2)
        shape = (-1, *call.node.shape[1:])
        error = (size * call.rounding.gamma(windows.shape[1] + 8)).view(shape)
        offset = offset.view(shape)
        if sign > 0:
            self.lower, self.upper = call.widened(torch.zeros_like(offset), offset, error)
        else:
            self.lower, self.upper = call.widened(-offset, torch.zeros_like(offset), error)

    def back(self, row: Tensor, rows: Rows) -> list[tuple[int, Tensor]]:
        """See `Step`."""
        flat = row.flatten(1)
        picked, sloped = flat.clamp(min=0), flat.clamp(max=0)
        if self._sign < 0:
            picked, sloped = sloped, picked
        moved = flat.new_zeros(len(flat), self._entries)
        moved.scatter_add_(1, rows.each_row(self._below, row), picked)
        slope = rows.each_row(self._slope, row)
        moved.scatter_add_(1, rows.each_row(self._above, row), sloped * slope)
        return [(self.source, moved[:, 1:].reshape(-1, *self._tail))]


def _both(box: Interval) -> tuple[Tensor, Tensor]:
    return box.lower, box.upper


def largest(call: Call) -> Step | None:
    """Max pooling, and maxima over dimensions other than the batch."""
    windows = _window_of(call)
    return None if windows is None else Largest(call, windows, 1)


def smallest(call: Call) -> Step | None:
    """Minima over dimensions other than the batch."""
    windows = _window_of(call)
    return None if windows is None else Largest(call, windows, -1)


def _window_of(call: Call) -> Tensor | None:
    if len(call.sources) != 1:
        return None
    return call.program.derived(call.node.index, "windows", lambda: _windows(call))


def _in_play(call: Call) -> dict[int, Tensor]:
    """Entries that may be the largest of a window that has more than one of these."""
    (source,) = call.sources
    windows, box = _window_of(call), call.box(source)
    if windows is None:
        return {}
    sign = -1 if call.node.op is aten.amin.default else 1
    ends = (box.lower, box.upper) if sign > 0 else (-box.upper, -box.lower)
    low, high = (F.pad(end.flatten(1), (1, 0), value=-torch.inf)[:, windows] for end in ends)
    rivals = high > low.amax(2, keepdim=True)
    rivals &= rivals.sum(2, keepdim=True) > 1
    open_ = torch.zeros(len(low), math.prod(call.program.shape(source)) + 1, device=low.device)
    places = windows.expand_as(low).flatten(1)
    open_.scatter_add_(1, places, rivals.flatten(1).to(open_.dtype))
    return {source: (open_[:, 1:] > 0).view_as(box.lower)}


_POOLS: set[Any] = {aten.max_pool2d.default, F.adaptive_max_pool2d}

STEPS[aten.maximum.default] = Stepping(larger)
STEPS[aten.minimum.default] = Stepping(smaller)
STEPS[aten.amax.default] = Stepping(largest, _in_play)
STEPS[aten.amin.default] = Stepping(smallest, _in_play)
STEPS.update(dict.fromkeys(_POOLS, Stepping(largest, _in_play)))

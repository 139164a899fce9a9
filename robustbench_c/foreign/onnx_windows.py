"""Rules for ONNX operators that slide a window: convolution and pooling, in 1, 2 or 3 dimensions.

Windows are the same in ONNX and torch but for padding: ONNX pads each end on its own. Where both
ends are alike, and torch takes the amount, the operator pads itself; else `pad` comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from robustbench_c.foreign.onnx_graph import Operation, Value

_CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_MAX_POOL = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def conv(op: Operation) -> Value:
    """Conv."""
    x, weight = op.input(0), op.input(1)
    if x.constant or not weight.constant:
        raise ValueError("only the input may depend on the network's input, not the weight")
    bias = op.optional(2)
    if bias is not None and not bias.constant:
        raise ValueError("the bias depends on the network's input: not supported")
    window = _window(op, x, op.attribute("kernel_shape", weight.shape[2:]))
    if window.kernel != weight.shape[2:]:
        raise ValueError(f"kernel_shape {window.kernel} is not that of the weight {weight.shape}")
    same = window.begin if window.symmetric else (0,) * window.dims
    if not window.symmetric:
        x = _padded(op, x, window, 0.0)
    groups = op.attribute("group", 1)
    call = _CONV[window.dims]
    return op.emit(call, x, weight, bias, window.stride, same, window.dilation, groups)


def max_pool(op: Operation) -> Value:
    """MaxPool, its first output."""
    x = _network_value(op)
    window = _window(op, x, op.attribute("kernel_shape", ()))
    op.attribute("storage_order", 0)  # matters only to the second output
    if any(p >= n for p, n in zip(window.begin + window.end, window.extent * 2, strict=True)):
        raise ValueError("pads as wide as the window, which leave windows with no input in them")
    if op.attribute("ceil_mode", 0):
        window = window.with_ceil(x)
    same = window.begin
    if not window.fits_torch:
        # Less than all inputs or equal, and unlike -inf it can be bounded, scaled and multiplied.
        x, same = _padded(op, x, window, torch.finfo(op.graph.dtype).min), (0,) * window.dims
    call = _MAX_POOL[window.dims]
    return op.emit(call, x, window.kernel, window.stride, same, window.dilation)


def average_pool(op: Operation) -> Value:
    """AveragePool."""
    x = _network_value(op)
    window = _window(op, x, op.attribute("kernel_shape", ()))
    if any(step != 1 for step in window.dilation):
        raise ValueError("attribute dilations is not supported")
    if op.attribute("ceil_mode", 0) and window.with_ceil(x) != window:
        raise ValueError("ceil_mode with a window that reaches over the end is not supported")
    counted = bool(op.attribute("count_include_pad", 0))
    same = window.begin
    if not window.fits_torch:
        if not counted:
            raise ValueError("uneven or wide pads with count_include_pad=0 are not supported")
        x, same = _padded(op, x, window, 0.0), (0,) * window.dims
    return op.emit(_AVG_POOL[window.dims], x, window.kernel, window.stride, same, False, counted)


def global_average_pool(op: Operation) -> Value:
    """GlobalAveragePool."""
    x = _network_value(op)
    return op.emit(torch.mean, x, tuple(range(2, x.rank)), keepdim=True)


@dataclass(frozen=True)
class _Window:
    """Sizes per dimension; `begin` and `end` are what is padded before and after."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def dims(self) -> int:
        return len(self.kernel)

    @property
    def symmetric(self) -> bool:
        return self.begin == self.end

    @property
    def fits_torch(self) -> bool:
        """Whether torch's pooling can pad by itself: at most half of the kernel, alike at ends."""
        return self.symmetric and all(
            2 * p <= k for p, k in zip(self.begin, self.kernel, strict=True)
        )

    @property
    def extent(self) -> tuple[int, ...]:
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def with_ceil(self, x: Value) -> _Window:
        """Pad the end so that the last window that starts within the input is a whole one."""
        end = []
        for i, size in enumerate(x.shape[2:]):
            room = size + self.begin[i] + self.end[i] - self.extent[i]
            steps = -(-room // self.stride[i])
            if steps * self.stride[i] >= size + self.begin[i]:
                steps -= 1
            end.append(self.end[i] + max(steps * self.stride[i] - room, 0))
        return _Window(self.kernel, self.stride, self.dilation, self.begin, tuple(end))


def _window(op: Operation, x: Value, kernel: Sequence[int]) -> _Window:
    dims, sizes = x.rank - 2, x.shape[2:]
    if dims not in _CONV:
        raise ValueError(f"{dims} spatial dimensions are not supported, only 1 to 3")
    ones = (1,) * dims
    stride, dilation = op.attribute("strides", ones), op.attribute("dilations", ones)
    mode = op.attribute("auto_pad", "NOTSET")
    pads = op.attribute("pads", (0,) * (2 * dims))
    kernel = tuple(kernel)
    if any(len(sides) != dims for sides in (kernel, stride, dilation)) or len(pads) != 2 * dims:
        raise ValueError(f"kernel_shape, strides, dilations or pads do not fit {dims} dimensions")
    if min(*kernel, *stride, *dilation) < 1 or min(pads) < 0:
        raise ValueError("kernel_shape, strides or dilations below 1, or pads below 0")
    window = _Window(kernel, stride, dilation, pads[:dims], pads[dims:])
    if mode == "NOTSET":
        return window
    if mode == "VALID":
        return _Window(kernel, stride, dilation, (0,) * dims, (0,) * dims)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad {mode!r} is not supported")
    total = [
        max((-(-size // step) - 1) * step + extent - size, 0)
        for size, step, extent in zip(sizes, stride, window.extent, strict=True)
    ]
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    begin, end = (less, more) if mode == "SAME_UPPER" else (more, less)
    return _Window(kernel, stride, dilation, begin, end)


def _padded(op: Operation, x: Value, window: _Window, fill: float) -> Value:
    ends = zip(window.begin[::-1], window.end[::-1], strict=True)
    return op.emit(F.pad, x, tuple(n for pair in ends for n in pair), "constant", fill)


def _network_value(op: Operation) -> Value:
    x = op.input()
    if x.constant:
        raise ValueError("pooling of a constant is not supported")
    return x

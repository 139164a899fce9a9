"""Coefficients that are zero outside of a small window of an image.

A bound on a neuron of an early convolution needs a patch of the layers before it, not all of them:
such rows cost a fraction of the time and memory of full ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from certify.maps import Convolution, LinearMap, Scale, transposed

_FULL = 0.6
"""Share of the image from which on a window is not worth its name."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Rows of coefficients on images, each zero outside of its window.

    Attributes:
        values: (rows, channels, height, width) of the window.
        top: First row of the image in the window, int64 (rows,); may lie outside.
        left: First column, likewise.
        shape: (channels, height, width) of the image.
        inside: Whether entries outside of the image are known to be zero.
    """

    values: Tensor
    top: Tensor
    left: Tensor
    shape: tuple[int, int, int]
    inside: bool = False

    @classmethod
    def of_neurons(
        cls, linear: Convolution, neurons: Tensor, sign: Tensor, out: tuple[int, ...]
    ) -> Windows | None:
        """The rows of a convolution's matrix for some of its neurons, or None if it is no window.

        Args:
            linear: The convolution.
            neurons: Places in its flattened result, int64 (rows,).
            sign: What to multiply each with, (rows,).
            out: (channels, height, width) of its result.
        """
        if not _plain(linear) or _covers(linear.weight.shape[2:], linear.shape):
            return None
        channel, place = neurons // (out[1] * out[2]), neurons % (out[1] * out[2])
        (sy, sx), (py, px) = linear.stride, linear.padding
        return cls(
            linear.weight[channel] * sign[:, None, None, None],
            place // out[2] * sy - py,
            place % out[2] * sx - px,
            linear.shape,  # type: ignore[arg-type]  # plain: three of them
        )

    def dense(self) -> Tensor:
        """The rows in full, (rows, channels, height, width)."""
        rows, channels, h, w = self.values.shape
        _, height, width = self.shape
        up, before = self._margins()
        tall, wide = height + up + h, width + before + w
        device = self.values.device
        y = (self.top + up)[:, None] + torch.arange(h, device=device)
        x = (self.left + before)[:, None] + torch.arange(w, device=device)
        place = (y[:, :, None] * wide + x[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1)
        full = self.values.new_zeros(rows, channels, tall * wide)
        full.scatter_(2, place, self.values.flatten(2))
        full = full.view(rows, channels, tall, wide)
        return full[:, :, up : up + height, before : before + width]

    def gather(self, images: Sequence[Tensor], owner: Tensor) -> list[Tensor]:
        """Of images (n, channels, height, width), each row's window, zero outside.

        All at once, and channels last in memory: a copy of few long runs.
        """
        h, w = self.values.shape[2:]
        up, before = self._margins()
        full = torch.cat([image.view(-1, *self.shape) for image in images], 1)
        full = F.pad(full, (before, w, up, h)).permute(0, 2, 3, 1).contiguous()
        _, tall, wide, depth = full.shape
        device = full.device
        y = (owner * tall + self.top + up)[:, None] + torch.arange(h, device=device)
        x = (self.left + before)[:, None] + torch.arange(w, device=device)
        place = (y[:, :, None] * wide + x[:, None, :]).flatten()
        held = full.view(-1, depth).index_select(0, place).view(-1, h, w, depth)
        return list(torch.split(held.permute(0, 3, 1, 2), self.shape[0], 1))

    def like(self, values: Tensor) -> Windows:
        """The same windows with other values, zero outside of the image."""
        return replace(self, values=values, inside=True)

    def through(self, linear: LinearMap) -> Windows | None:
        """Carry back through a map; None where it is not of a kind that keeps windows."""
        if isinstance(linear, Scale):
            factor = linear.factor
            if factor.numel() not in (1, self.shape[0]):
                return None
            return replace(self, values=self.values * factor.reshape(1, -1, 1, 1))
        if not isinstance(linear, Convolution) or not _plain(linear):
            return None
        (sy, sx), (py, px) = linear.stride, linear.padding
        kernel, size = linear.weight.shape[2:], self.values.shape[2:]
        grown = ((size[0] - 1) * sy + kernel[0], (size[1] - 1) * sx + kernel[1])
        if _covers(grown, linear.shape):
            return None
        values = self.values
        if not self.inside:
            one = values.new_ones(1, *self.shape)
            values = values * self.gather([one], torch.zeros_like(self.top))[0]
        return Windows(
            transposed(values, linear.weight, (sy, sx)),
            self.top * sy - py,
            self.left * sx - px,
            linear.shape,  # type: ignore[arg-type]  # plain: three of them
        )

    def _margins(self) -> tuple[int, int]:
        """How far windows stick out above and on the left."""
        return max(0, -int(self.top.min())), max(0, -int(self.left.min()))


def _plain(linear: Convolution) -> bool:
    return len(linear.shape) == 3 and linear.plain


def _covers(window: tuple[int, ...] | torch.Size, image: tuple[int, ...]) -> bool:
    return window[0] * window[1] > _FULL * image[1] * image[2]

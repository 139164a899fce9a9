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

from certify.compact import Compact
from certify.maps import Convolution, LinearMap, Scale, transposed

_FULL = 0.6
"""Share of the image from which on a window is not worth its name."""


@dataclass(frozen=True, eq=False)
class Windows(Compact):
    """Groups of rows of coefficients on images, zero outside of a window for each group.

    Attributes:
        values: (groups * size, channels, height, width) of the windows.
        top: First row of the image in each group's window, int64 (groups,); may lie outside.
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
        cls, linear: Convolution, neurons: Tensor, out: tuple[int, ...]
    ) -> Windows | None:
        """For some neurons, the row of a convolution's matrix and its negative.

        Args:
            linear: The convolution.
            neurons: Places in its flattened result, int64 (groups,).
            out: (channels, height, width) of its result.

        Returns:
            Groups of two rows, or None if they are no windows.
        """
        if not _plain(linear) or _covers(linear.weight.shape[2:], linear.shape):
            return None
        channel, place = neurons // (out[1] * out[2]), neurons % (out[1] * out[2])
        (sy, sx), (py, px) = linear.stride, linear.padding
        kernels = torch.stack([linear.weight, -linear.weight], 1).permute(0, 1, 3, 4, 2)
        return cls(
            kernels.contiguous()[channel].flatten(0, 1).permute(0, 3, 1, 2),
            place // out[2] * sy - py,
            place % out[2] * sx - px,
            linear.shape,  # type: ignore[arg-type]  # plain: three of them
        )

    @property
    def grouped(self) -> Tensor:
        """The values as (groups, size, channels, height, width)."""
        count = len(self.top)
        return self.values.view(count, len(self.values) // count, *self.values.shape[1:])

    def dense(self) -> Tensor:
        """The rows in full, (groups * size, channels, height, width)."""
        values = self.grouped
        groups, size, channels, h, w = values.shape
        _, height, width = self.shape
        up, down, before, after = self._margins()
        tall, wide = up + height + down, before + width + after
        device = values.device
        y = (self.top + up)[:, None] + torch.arange(h, device=device)
        x = (self.left + before)[:, None] + torch.arange(w, device=device)
        place = (y[:, :, None] * wide + x[:, None, :]).flatten(1)[:, None]
        full = values.new_zeros(groups, size * channels, tall * wide)
        full.scatter_(2, place.expand(-1, size * channels, -1), values.reshape(groups, -1, h * w))
        full = full.view(groups * size, channels, tall, wide)
        return full[:, :, up : up + height, before : before + width]

    def gather(self, images: Sequence[Tensor], group: Tensor) -> list[Tensor]:
        """Of images (n, channels, height, width), each group's window, zero outside.

        All at once, and channels last in memory: a copy of few long runs.

        Args:
            images: By sample.
            group: Sample of each group, ascending.

        Returns:
            (groups, 1, channels, height, width) each.
        """
        h, w = self.values.shape[2:]
        up, down, before, after = self._margins()
        first, last = int(group[0]), int(group[-1]) + 1
        full = torch.cat([image.view(-1, *self.shape)[first:last] for image in images], 1)
        full = F.pad(full, (before, after, up, down)).permute(0, 2, 3, 1).contiguous()
        _, tall, wide, depth = full.shape
        device = full.device
        y = ((group - first) * tall + self.top + up)[:, None] + torch.arange(h, device=device)
        x = (self.left + before)[:, None] + torch.arange(w, device=device)
        place = (y[:, :, None] * wide + x[:, None, :]).flatten()
        held = full.view(-1, depth).index_select(0, place).view(-1, 1, h, w, depth)
        return list(torch.split(held.permute(0, 1, 4, 2, 3), self.shape[0], 2))

    def _by_sign(self, lower: Tensor, upper: Tensor, group: Tensor) -> Tensor:
        low, high = self.gather([lower, upper], group)
        flat = self.grouped
        return torch.where(flat > 0, low, high).mul_(flat)

    def sloped(self, lower: Tensor, upper: Tensor, group: Tensor) -> Windows:
        """See `Compact`."""
        values = self._by_sign(lower, upper, group).flatten(0, 1)
        return replace(self, values=values, inside=True)

    def least(self, lower: Tensor, upper: Tensor, group: Tensor) -> Tensor:
        """See `Compact`."""
        return self._by_sign(lower, upper, group).flatten(2).sum(2).flatten()

    def times(self, values: Tensor) -> Tensor:
        """See `Compact`."""
        (held,) = self.gather([values], torch.zeros_like(self.top))
        return (held * self.grouped).flatten(2).sum(2).flatten()

    def some(self, groups: Tensor) -> Windows:
        """The windows of some groups, by a mask."""
        values = self.grouped[groups].flatten(0, 1)
        return replace(self, values=values, top=self.top[groups], left=self.left[groups])

    def through(self, linear: LinearMap) -> Windows | None:
        """Carry back through a map; None where it is not of a kind that keeps windows."""
        if isinstance(linear, Scale):
            factor = linear.factor
            channels = self.shape[0]
            if factor.numel() > 1 and (
                factor.numel() != channels or factor.shape[-3:] != (channels, 1, 1)
            ):
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
            (held,) = self.gather([one], torch.zeros_like(self.top))
            values = (self.grouped * held).flatten(0, 1)
        return Windows(
            transposed(values, linear.weight, (sy, sx)),
            self.top * sy - py,
            self.left * sx - px,
            linear.shape,  # type: ignore[arg-type]  # plain: three of them
        )

    def _margins(self) -> tuple[int, int, int, int]:
        """How far windows stick out above, below, on the left and on the right.

        A window may lie outside altogether: that of a neuron which sees padding alone.
        """
        (h, w), (_, height, width) = self.values.shape[2:], self.shape
        up, before = -int(self.top.min()), -int(self.left.min())
        down, after = int(self.top.max()) + h - height, int(self.left.max()) + w - width
        return max(0, up), max(0, down), max(0, before), max(0, after)


def _plain(linear: Convolution) -> bool:
    return len(linear.shape) == 3 and linear.plain


def _covers(window: tuple[int, ...] | torch.Size, image: tuple[int, ...]) -> bool:
    return window[0] * window[1] > _FULL * image[1] * image[2]

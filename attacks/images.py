"""Building blocks of image changes: resampling, blur, smooth noise, JPEG.

Images are float64, (n, C, H, W), 0 to 1, with any number of channels. A row of a result depends on
that row alone, down to the last bit: everything is element by element, in a fixed order, and what
needs a sine or an exponential is a plain number or comes from a table.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attacks.randomness import uniform


def to_unit(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Inputs in units of their box: 0 at its lower end, 1 at its upper (0 where it has no width).

    Args:
        x: Inputs inside the box, (n, *shape).
        lower: Lower end of the box, a scalar or of the shape of a sample.
        upper: Upper end of the box, likewise.

    Returns:
        float64, like `x`.
    """
    low, span = lower.double(), upper.double() - lower.double()
    return torch.where(span > 0, (x.double() - low) / torch.where(span > 0, span, 1.0), 0.0)


def from_unit(changed: Tensor, unit: Tensor, x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The way back, into the box bit for bit; features that did not change keep their bits.

    Args:
        changed: What became of `unit`, float64; values beyond 0 and 1 are cut off.
        unit: `to_unit(x, lower, upper)`.
        x: The inputs, float32.
        lower: Lower end of the box, a scalar or of the shape of a sample.
        upper: Upper end of the box, likewise.
    """
    low, span = lower.double(), upper.double() - lower.double()
    wide = (changed.clamp(0.0, 1.0) * span + low).float()
    wide = torch.where(changed == unit, x, wide)
    return torch.minimum(torch.maximum(wide, lower.float()), upper.float())


def grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, float64, (1, H, 1) and (1, 1, W)."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, dtype=torch.float64, device=images.device)
    columns = torch.arange(width, dtype=torch.float64, device=images.device)
    return rows[None, :, None], columns[None, None, :]


def resample(images: Tensor, rows: Tensor, columns: Tensor, black: bool = False) -> Tensor:
    """Bilinear interpolation.

    Args:
        images: (n, C, H, W).
        rows: Where each pixel of the result is read, in pixels, broadcastable to (n, H, W).
        columns: Likewise.
        black: Whether 0 lies outside of the image; otherwise its edge goes on for ever.
    """
    if black:
        images = torch.nn.functional.pad(images, (1, 1, 1, 1))
        rows, columns = rows + 1.0, columns + 1.0
    n, channels, height, width = images.shape
    rows, columns = rows + 0.0 * columns, columns + 0.0 * rows
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    top, left = rows.floor(), columns.floor()
    below, right = (rows - top)[:, None], (columns - left)[:, None]
    flat = images.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        place = (row.clamp(max=height - 1) * width + column.clamp(max=width - 1)).long()
        place = place.expand(n, *place.shape[1:])[:, None]
        wide = place.flatten(2).expand(-1, channels, -1)
        return flat.gather(2, wide).view(n, channels, *place.shape[-2:])

    upper = at(top, left) * (1.0 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1.0 - right) + at(top + 1, left + 1) * right
    return upper * (1.0 - below) + lower * below


def shifted_sum(images: Tensor, offsets: Sequence[tuple[int, int]], weights: Tensor) -> Tensor:
    """`sum_k weights[:, k] * images` moved by `offsets[k]`, the edge going on for ever.

    Args:
        images: (n, C, H, W).
        offsets: Rows and columns to move by.
        weights: float64, (n, len(offsets)) or (1, len(offsets)).
    """
    height, width = images.shape[-2:]
    reach = max(max(abs(row), abs(column)) for row, column in offsets)
    wide = torch.nn.functional.pad(images, (reach,) * 4, mode="replicate")
    total = torch.zeros_like(images)
    for k, (row, column) in enumerate(offsets):
        part = wide[..., reach + row : reach + row + height, reach + column :][..., :width]
        total = total + part * weights[:, k].view(-1, 1, 1, 1)
    return total


def gaussian_weights(sigma: float, reach: int) -> list[float]:
    """Weights of the taps -reach .. reach of a Gaussian, which add up to 1; sigma 0: the middle."""
    if sigma <= 0:
        return [float(tap == 0) for tap in range(-reach, reach + 1)]
    raw = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(-reach, reach + 1)]
    return [value / sum(raw) for value in raw]


def separable_blur(images: Tensor, weights: Tensor) -> Tensor:
    """Blur down the rows, then along the columns.

    Args:
        images: (n, C, H, W).
        weights: Odd number of taps, (n, taps) or (1, taps), as of `gaussian_weights`.
    """
    reach = weights.shape[1] // 2
    if reach == 0:
        return images
    taps = range(-reach, reach + 1)
    down = shifted_sum(images, [(tap, 0) for tap in taps], weights)
    return shifted_sum(down, [(0, tap) for tap in taps], weights)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels, cut off at 3 sigma."""
    weights = gaussian_weights(sigma, math.ceil(3 * sigma))
    return separable_blur(images, torch.tensor([weights], dtype=torch.float64).to(images.device))


def smooth_noise(keys: Tensor, height: int, width: int, cells: int, offset: int = 0) -> Tensor:
    """Random numbers on a coarse grid, interpolated smoothly: value noise.

    Args:
        keys: int64, (n,), one stream for each sample.
        height: Of the result.
        width: Of the result.
        cells: Cells of the coarse grid to a side; `(cells + 1)^2` numbers are drawn.
        offset: Index of the first number in the stream.

    Returns:
        float64, (n, height, width), 0 to 1.
    """
    coarse = uniform(keys, (cells + 1) ** 2, offset).double().view(-1, cells + 1, cells + 1)

    def place(size: int) -> tuple[Tensor, Tensor]:
        at = (torch.arange(size, dtype=torch.float64, device=keys.device) + 0.5) * (cells / size)
        start = at.floor().clamp(max=cells - 1)
        part = at - start
        return start.long(), part * part * (3.0 - 2.0 * part)

    (row, down), (column, along) = place(height), place(width)
    down = down[:, None]

    def corner(rows: Tensor, columns: Tensor) -> Tensor:
        return coarse[:, rows][:, :, columns]

    upper = corner(row, column) * (1.0 - along) + corner(row, column + 1) * along
    lower = corner(row + 1, column) * (1.0 - along) + corner(row + 1, column + 1) * along
    return upper * (1.0 - down) + lower * down


def plasma(keys: Tensor, height: int, width: int, roughness: float) -> Tensor:
    """Clouds: smooth noise of ever finer grids, each `roughness` times as strong as the last.

    Returns:
        float64, (n, height, width), 0 to 1.
    """
    total, weight, offset, scale, cells = 0.0 * keys[:, None, None].double(), 1.0, 0, 0.0, 2
    while cells < 2 * min(height, width):
        total = total + weight * smooth_noise(keys, height, width, cells, offset)
        offset += (cells + 1) ** 2
        scale, weight, cells = scale + weight, weight * roughness, 2 * cells
    return total / scale


def jpeg(images: Tensor, qualities: Sequence[int]) -> Tensor:
    """JPEG and back, by Pillow: three channels as colours, any other number each on its own.

    Args:
        images: (n, C, H, W).
        qualities: 1 (worst) to 95, for each image.
    """
    coded = (images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
    found = np.empty_like(coded)
    for image, quality, target in zip(coded, qualities, found, strict=True):
        if len(image) == 3:
            target[:] = _through_jpeg(image.transpose(1, 2, 0), quality).transpose(2, 0, 1)
        else:
            for channel, place in zip(image, target, strict=True):
                place[:] = _through_jpeg(channel, quality)
    return torch.from_numpy(found).double().div(255.0).to(images.device)


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    with io.BytesIO() as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality)
        file.seek(0)
        with Image.open(file) as image:
            return np.asarray(image)

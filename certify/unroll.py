"""Weights of layers as sparse matrices of flattened samples."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix

from certify.maps import Convolution, Matrix

Csr = csr_matrix


def entries(linear: Matrix | Convolution) -> int:
    """Most entries that the matrix of a layer can have: those of weights times their places."""
    count = int(torch.count_nonzero(linear.weight))
    return count if isinstance(linear, Matrix) else count * math.prod(linear.shape[1:])


def unrolled(linear: Matrix | Convolution, out: tuple[int, ...]) -> Csr:
    """The matrix (out, in) of a layer, float64, explicit where weights are not zero.

    Args:
        linear: A matrix, or a plain 2-d convolution.
        out: Shape of one sample's result.
    """
    weight = linear.weight.detach().double().cpu().numpy()
    if isinstance(linear, Matrix):
        return csr_matrix(weight.T)
    _, height, width = linear.shape
    _, tall, wide = out
    (sy, sx), (py, px) = linear.stride, linear.padding
    into, of, dy, dx = (index[:, None, None] for index in np.nonzero(weight))
    y, x = np.arange(tall)[None, :, None], np.arange(wide)[None, None, :]
    row = into * (tall * wide) + y * wide + x
    below, right = y * sy - py + dy, x * sx - px + dx
    column = of * (height * width) + below * width + right
    inside = (below >= 0) & (below < height) & (right >= 0) & (right < width)
    value = np.broadcast_to(weight[into, of, dy, dx], inside.shape)
    row, column = (np.broadcast_to(index, inside.shape)[inside] for index in (row, column))
    shape = math.prod(out), math.prod(linear.shape)
    return coo_matrix((value[inside], (row, column)), shape).tocsr()

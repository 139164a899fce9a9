"""Matrices of few entries: linear maps by compressed rows (CSR)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from certify.maps import Weighted

REACH = 2.0**64
"""How large inputs may be. What could overflow beyond has been left out."""
LARGEST = 2.0**120
"""What no neuron that is left out may exceed for inputs up to `REACH`: far from overflow."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a matrix has entries.

    Attributes:
        first: For each row where its entries begin, and the number of entries; int32 (out + 1,).
        column: Column of each entry, ascending within a row; int32 (entries,).
        shape: (out, in).
    """

    first: Tensor
    column: Tensor
    shape: tuple[int, int]

    @cached_property
    def transposed(self) -> tuple[Pattern, Tensor]:
        """The pattern of the transpose, and which entry each of its entries is."""
        places = np.arange(len(self.column), dtype=np.int32)
        mine = csr_matrix((places, self.column.numpy(), self.first.numpy()), self.shape)
        theirs = mine.tocsc()
        first, row, order = (
            torch.from_numpy(part) for part in (theirs.indptr, theirs.indices, theirs.data)
        )
        return Pattern(first.int(), row.int(), self.shape[::-1]), order.long()

    def matrix(self, values: Tensor) -> Tensor:
        """The matrix with these entries, for products."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse", UserWarning)  # that it is in beta
            return torch.sparse_csr_tensor(self.first, self.column, values, self.shape)


def starts(counts: Tensor) -> Tensor:
    """Where runs of given lengths begin, one after the other, and where the last ends; int32."""
    total = counts.cumsum(0)
    return torch.cat([total.new_zeros(1), total]).int()


class _Product(torch.autograd.Function):
    """A constant sparse matrix times a dense one, with a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        """Matrix (out, in) times x (in, n)."""
        ctx.both = transposed, matrix
        return matrix @ x.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The same with the transpose."""
        return _Product.apply(gradients[0], *ctx.both), None, None  # type: ignore[no-untyped-call]


class SparseMatrix(Weighted):
    """A matrix by its entries, from flattened samples to flattened values.

    A sample with an input that is not a number, or beyond `REACH`, gives nothing but NaN, also
    where no entry takes that input: the layer that this one stands for multiplies it by 0. Results
    lie in memory with the samples side by side, as products with them take theirs.
    """

    def __init__(
        self,
        pattern: Pattern,
        weight: Tensor,
        bias: Tensor | None,
        bias_size: Tensor | None,
        shapes: tuple[Sequence[int], Sequence[int]],
    ) -> None:
        """Take entries and where they are, and the shapes of one sample before and after."""
        self.pattern, self.weight = pattern, weight
        self.bias = None if bias is None else bias.reshape(tuple(shapes[1]))
        self.bias_size = None if bias_size is None else bias_size.reshape(tuple(shapes[1]))
        self.shapes = shapes
        self.terms, self.spread = (
            int(p.first.diff().max()) + 1 for p in (pattern, pattern.transposed[0])
        )

    @property
    def outputs(self) -> int:
        """See `Weighted`."""
        return self.pattern.shape[0]

    def like(self, weight: Tensor, bias: Tensor | None) -> SparseMatrix:
        """See `Weighted`."""
        return SparseMatrix(self.pattern, weight, bias, None, self.shapes)

    @cached_property
    def _forth(self) -> Tensor:
        return self.pattern.matrix(self.weight)

    @cached_property
    def _back(self) -> Tensor:
        pattern, order = self.pattern.transposed
        return pattern.matrix(self.weight[order])

    @cached_property
    def _abs(self) -> Tensor:
        return self.pattern.matrix(self.weight.abs())

    def apply(self, x: Tensor) -> Tensor:
        """See `LinearMap`."""
        flat = x.flatten(1)
        result = _product(self._forth, lambda: self._back, flat.T, self.bias)
        if not bool(torch.linalg.vector_norm(flat) <= REACH):
            fits = flat.abs().amax(1) <= REACH
            result = torch.where(fits, result, torch.nan)
        return _shaped(result, self.shapes[1])

    def apply_abs(self, x: Tensor, bias: float = 0.0) -> Tensor:
        """See `LinearMap`."""
        size = None if self.bias_size is None or not bias else self.bias_size * bias
        return _shaped(_plain(self._abs, x.flatten(1).T, size), self.shapes[1])

    def adjoint(self, rows: Tensor) -> Tensor:
        """See `LinearMap`."""
        return _shaped(self.back(rows.flatten(1).T), self.shapes[0])

    def back(self, columns: Tensor) -> Tensor:
        """The transpose of W, for columns (out, n) to (in, n)."""
        return _product(self._back, lambda: self._forth, columns)


def _shaped(columns: Tensor, shape: Sequence[int]) -> Tensor:
    return columns.T.reshape(columns.shape[1], *shape)


def _product(
    matrix: Tensor, transposed: Callable[[], Tensor], x: Tensor, bias: Tensor | None = None
) -> Tensor:
    if x.requires_grad:
        found: Tensor = _Product.apply(x, matrix, transposed())  # type: ignore[no-untyped-call]
        return found if bias is None else found + bias.flatten()[:, None]
    return _plain(matrix, x, bias)


def _plain(matrix: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return matrix @ x.contiguous()
    every = bias.flatten()[:, None].expand(-1, x.shape[1])
    return torch.addmm(every, matrix, x.contiguous())

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
"""Inputs of a guarded map are this large at most: any larger and its value is not a number."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a matrix has entries.

    Attributes:
        first: For each row the place of its first entry, and the number of entries; int32 (out + 1).
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
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The same with the transpose."""
        return _Product.apply(gradients[0], *ctx.both), None, None  # type: ignore[no-untyped-call]


class SparseMatrix(Weighted):
    """A matrix by its entries, from flattened samples to flattened values.

    Results lie in memory with the samples side by side, as products with them take theirs.
    """

    def __init__(
        self,
        pattern: Pattern,
        weight: Tensor,
        bias: Tensor | None,
        bias_size: Tensor | None,
        shapes: tuple[Sequence[int], Sequence[int]],
        *,
        guarded: bool = False,
    ) -> None:
        """Take entries and where they are, and the shapes of one sample before and after.

        `guarded`: give NaN for a sample with an input that is not a number or beyond `REACH`, also
        where no entry takes that input: the layer that this one stands for multiplies it by 0.
        """
        self.pattern, self.weight = pattern, weight
        self.bias = None if bias is None else bias.reshape(tuple(shapes[1]))
        self.bias_size = None if bias_size is None else bias_size.reshape(tuple(shapes[1]))
        self.shapes, self.guarded = shapes, guarded
        self.terms, self.spread = (
            int(p.first.diff().max()) + 1 for p in (pattern, pattern.transposed[0])
        )

    @property
    def outputs(self) -> int:
        """See `Weighted`."""
        return self.pattern.shape[0]

    def like(self, weight: Tensor, bias: Tensor | None) -> SparseMatrix:
        """See `Weighted`."""
        return SparseMatrix(self.pattern, weight, bias, None, self.shapes, guarded=self.guarded)

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
        result = _product(self._forth, lambda: self._back, flat.T)
        if self.bias is not None:
            result = result + self.bias.flatten()[:, None]
        if self.guarded:
            result = result + (flat.abs().amax(1) * (torch.finfo(x.dtype).max / REACH)) * 0
        return result.T.unflatten(1, self.shapes[1])

    def apply_abs(self, x: Tensor, bias: float = 0.0) -> Tensor:
        """See `LinearMap`."""
        result = self._abs @ x.flatten(1).T.contiguous()
        if self.bias_size is not None and bias:
            result = result.add_(self.bias_size.flatten()[:, None], alpha=bias)
        return result.T.unflatten(1, self.shapes[1])

    def adjoint(self, rows: Tensor) -> Tensor:
        """See `LinearMap`."""
        return self.back(rows.flatten(1).T).T.unflatten(1, self.shapes[0])

    def back(self, columns: Tensor) -> Tensor:
        """The transpose of W, for columns (out, n) to (in, n)."""
        return _product(self._back, lambda: self._forth, columns)


def _product(matrix: Tensor, transposed: Callable[[], Tensor], x: Tensor) -> Tensor:
    if x.requires_grad:
        found: Tensor = _Product.apply(x, matrix, transposed())  # type: ignore[no-untyped-call]
        return found
    return matrix @ x.contiguous()

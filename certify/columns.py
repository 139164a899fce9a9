"""Full rows of coefficients with the samples side by side in memory, as sparse products take them.

A product with a sparse matrix reads one row of what it is multiplied with for each of its entries:
so an entry's coefficients for all samples have to lie together. Slopes by sample then apply to runs
of them, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certify.compact import Compact
from certify.maps import LinearMap, Matrix, affine
from certify.program import Program
from certify.sparse_map import SparseMatrix


@dataclass(frozen=True, eq=False)
class Columns(Compact):
    """As many rows for every one of n samples; by row first, then by sample.

    Attributes:
        values: (entries of the node, rows of a sample * n).
        samples: Number n of samples.
        shape: Of one sample's value.
    """

    values: Tensor
    samples: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, rows: Tensor, samples: int) -> Columns:
        """From rows (n * each, *shape), those of a sample together."""
        return cls(_aside(rows, samples), samples, tuple(rows.shape[1:]))

    def dense(self) -> Tensor:
        """See `Compact`."""
        by_sample = self.values.view(len(self.values), -1, self.samples).permute(2, 1, 0)
        return by_sample.reshape(-1, *self.shape)

    def plus(self, rows: Tensor) -> Columns:
        """See `Compact`."""
        return Columns(self.values + _aside(rows, self.samples), self.samples, self.shape)

    def through(self, linear: LinearMap) -> Columns | None:
        """See `Compact`."""
        if isinstance(linear, SparseMatrix):
            return Columns(linear.back(self.values), self.samples, tuple(linear.shapes[0]))
        if isinstance(linear, Matrix):
            return Columns(linear.weight @ self.values, self.samples, linear.weight.shape[:1])
        return None

    def _by_sign(self, lower: Tensor, upper: Tensor) -> Tensor:
        low, high = (values.flatten(1).T[:, None] for values in (lower, upper))
        values = self.values.view(len(self.values), -1, self.samples)
        factor = torch.where(values > 0, low, high)
        plain = not (values.requires_grad or factor.requires_grad)
        return (factor.mul_(values) if plain else factor * values).flatten(1)

    def sloped(self, lower: Tensor, upper: Tensor, group: Tensor) -> Columns:
        """See `Compact`; every sample has one group."""
        return Columns(self._by_sign(lower, upper), self.samples, self.shape)

    def least(self, lower: Tensor, upper: Tensor, group: Tensor) -> Tensor:
        """See `Compact`; every sample has one group."""
        return self._ordered(self._by_sign(lower, upper).sum(0))

    def times(self, values: Tensor) -> Tensor:
        """See `Compact`."""
        return self._ordered(values.flatten() @ self.values)

    def _ordered(self, found: Tensor) -> Tensor:
        return found.view(-1, self.samples).T.flatten()


def _aside(rows: Tensor, samples: int) -> Tensor:
    return rows.reshape(samples, len(rows) // samples, -1).permute(2, 1, 0).flatten(1)


def arranged(program: Program, rows: Tensor, samples: int) -> Tensor | Columns:
    """Rows (n * each, *shape) as they are, or as columns where a program has sparse matrices."""

    def sparse() -> bool:
        parts = (part for node in program.nodes for part in affine(program, node) or ())
        return any(isinstance(linear, SparseMatrix) for _, linear in parts)

    return Columns.of(rows, samples) if program.derived(-1, "sparse", sparse) else rows

"""What has to be proved of a network's outputs: linear inequalities, in conjunctions of choices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Specification:
    """For every clause, one of its rows must hold: `coefficients @ output + offset > 0`.

    A clause is the negation of one conjunction of the unsafe set: robustness of a class has one
    clause for each rival, with one row in it; "output 0 is the smallest" as the unsafe set has one
    clause with a row for each other output. A single choice of row for a whole box proves a clause
    for that box; different parts of the box may choose differently, which branching makes use of.

    Attributes:
        coefficients: (n, rows, outputs), float.
        offset: (n, rows), float.
        clause: For each row the number of its clause, from 0, ascending.
    """

    coefficients: Tensor
    offset: Tensor
    clause: tuple[int, ...]

    def per_clause(self, rows: Tensor) -> Tensor:
        """From bounds of rows (..., rows) to bounds of clauses (..., clauses): the best row's."""
        index = torch.tensor(self.clause, device=rows.device).expand(rows.shape)
        shape = (*rows.shape[:-1], self.clause[-1] + 1)
        empty = rows.new_full(shape, -torch.inf)
        return empty.scatter_reduce(-1, index, rows, "amax", include_self=False)


def margins(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Specification:
    """Return `z_y - z_k > 0` for every other class k, one clause each.

    Args:
        labels: int64, (n,).
        classes: Number of outputs.
        dtype: Of the coefficients.

    Returns:
        `coefficients` (n, classes - 1, classes): rival classes in ascending order.
    """
    unit = torch.eye(classes, dtype=dtype, device=labels.device)
    rivals = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    rivals = rivals + (rivals >= labels[:, None])
    rows = unit[labels][:, None] - unit[rivals]
    return Specification(rows, rows.new_zeros(rows.shape[:2]), tuple(range(classes - 1)))

"""One number for each row, in a form that is combined with inputs."""

from __future__ import annotations

from torch import Tensor


def wide(rows: Tensor, like: Tensor) -> Tensor:
    """`rows`, (n,), as (n, 1, ...): of as many dimensions as `like`."""
    return rows.view(-1, *[1] * (like.dim() - 1))

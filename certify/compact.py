"""Rows of coefficients of which most are zero, and known to be: what a backward pass asks of them.

A form of its own may cost a fraction of the time and memory of full rows. `Windows` has one window
of an image for each sample and neuron; `Scattered` has entries at the same places for all samples;
`Columns` has all entries, and only their order in memory is another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from certify.maps import LinearMap


class Compact(ABC):
    """Rows of coefficients on a node, with zeros left out."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The rows in full, (rows, *shape of the node)."""

    def plus(self, rows: Tensor) -> Compact | Tensor:
        """The sum with rows in full."""
        return self.dense() + rows

    @abstractmethod
    def through(self, linear: LinearMap) -> Compact | None:
        """Carry back through a map; None where the form does not survive it."""

    @abstractmethod
    def sloped(self, lower: Tensor, upper: Tensor, group: Tensor) -> Compact:
        """Multiply positive coefficients by `lower`, and negative ones by `upper`.

        Args:
            lower: By sample, (n, *shape of the node).
            upper: Likewise.
            group: Sample of each group of rows, ascending.
        """

    @abstractmethod
    def least(self, lower: Tensor, upper: Tensor, group: Tensor) -> Tensor:
        """The minimum of `row @ v` over lower <= v <= upper, (rows,); arguments as of `sloped`."""

    @abstractmethod
    def times(self, values: Tensor) -> Tensor:
        """`row @ values`, (rows,), for values (1, *shape of the node)."""

"""What `fit` needs of others: data, an objective, and an attack to measure with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from certify.sparse import Random, Sparsifier


class TrainingData(Protocol):
    """A data set as `robustbench_c.data.load` gives it.

    Attributes:
        name: Its registered name.
        x: float32, (n, *shape), array or tensor, inside the box.
        y: int64, (n,), from 0 to `len(classes) - 1`.
        lower: Lower end of the input box, a number or of the shape of a sample.
        upper: Upper end, likewise.
        classes: Names of the classes.
        sha256: Hash of the content.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def x(self) -> Any: ...  # noqa: D102
    @property
    def y(self) -> Any: ...  # noqa: D102
    @property
    def lower(self) -> Any: ...  # noqa: D102
    @property
    def upper(self) -> Any: ...  # noqa: D102
    @property
    def classes(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102


class Objective(Protocol):
    """A training loss with its settings and its input box already bound.

    The model comes in training mode and has to be left so.
    """

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator, scale: float
    ) -> Tensor:
        """The batch's mean loss, a scalar; `scale` in [0, 1] multiplies eps (warm-up)."""
        ...


@runtime_checkable
class Replaying(Protocol):
    """What an objective that takes several steps on each batch has as well.

    Attributes:
        replays: Steps on each batch in a row.
    """

    replays: int

    def begin(self) -> None:
        """An epoch begins: what was kept from the last one is forgotten, so that it can resume."""
        ...


class Attack(Protocol):
    """An attack with its settings and its noise bound, to measure robust accuracy with."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Where it found an adversarial example, bool (n,); the model is in evaluation mode."""
        ...


class Verifier(Protocol):
    """A proof with its settings bound, to measure verified accuracy with."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Which samples it proves robust, bool (n,); the model is in evaluation mode."""
        ...


class Sparsify(Protocol):
    """A sparse training method with its settings bound, made for one network."""

    def __call__(self, model: nn.Module, random: Random) -> Sparsifier:
        """The method at work on `model`, which is on its device; `random` seeds its choices."""
        ...

"""What every architecture is: named, typed, bounded arguments, and how to make the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from certify.sparse.layers import LAYERS

Width = Annotated[int, Field(ge=1, le=65_536)]
"""Neurons or channels of one layer."""


class Architecture(BaseModel, ABC):
    """A family of networks; the fields of a subclass are the arguments it takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: ClassVar[str]
    later: ClassVar[frozenset[str]] = frozenset()
    """Arguments that the family did not have at first: `describe` has them where they are set, so
    that models from before keep their hash."""

    @abstractmethod
    def make(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Return the network, freshly initialised.

        Raises:
            ValueError: The input shape does not suit the family.
        """

    def resized(self, widths: tuple[int, ...]) -> Architecture:
        """Return the same family with other widths of its layers (see `widths_of`).

        Raises:
            ValueError: It has no argument for them.
        """
        raise ValueError(f"{self.name} has no arguments for the widths of single layers")

    def describe(self) -> str:
        """Return the name with every argument resolved: "mlp(widths=(64, 64), ...)"."""
        fields = type(self).model_fields
        told = [k for k, v in self if k not in self.later or v != fields[k].default]
        values = ", ".join(f"{key}={getattr(self, key)!r}" for key in told)
        return f"{self.name}({values})" if values else self.name


def widths_of(network: nn.Module) -> tuple[int, ...]:
    """Return the neurons or channels of each linear or convolution layer but the last."""
    return tuple(len(part.weight) for part in network.modules() if isinstance(part, LAYERS))[:-1]


def image_shape(input_shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """Return (channels, height, width), or raise ValueError when it is not such an image."""
    if len(input_shape) != 3:
        raise ValueError(f"needs images (channels, height, width), not samples of {input_shape}")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ValueError(f"needs images of at least {smallest}x{smallest}, not {height}x{width}")
    return channels, height, width

"""Tables of attributes as published, and how they become columns in [0, 1].

A number is scaled by the fixed range of its attribute, a category becomes one-hot. So `eps` is in
parts of each attribute's range, and gradients of different columns can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from robustbench_c.data.attributes import Attribute
from robustbench_c.data.dataset import Dataset, build
from robustbench_c.errors import DataError


@dataclass(frozen=True)
class Number:
    """An attribute of whole numbers, which becomes `(value - low) / (high - low)`.

    Attributes:
        name: Its name, and that of its column.
        low: Least value.
        high: Greatest value.
        protected: See `Attribute`.
        immutable: See `Attribute`.
    """

    name: str
    low: int
    high: int
    protected: bool = False
    immutable: bool = False

    def read(self, value: str) -> float:
        """Return the scaled value.

        Raises:
            ValueError: Not a whole number from `low` to `high`; says what is expected.
        """
        if not (value.isascii() and value.isdigit() and self.low <= int(value) <= self.high):
            raise ValueError(f"not a whole number from {self.low} to {self.high}")
        return (int(value) - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Category:
    """An attribute of categories, each of which becomes a column.

    Attributes:
        name: Its name; a column is called `name=category`.
        codes: The values in the file, in the order of the columns, and what they mean.
        protected: See `Attribute`.
    """

    name: str
    codes: Mapping[str, str]
    protected: bool = False

    @cached_property
    def _places(self) -> dict[str, int]:
        return {code: place for place, code in enumerate(self.codes)}

    def read(self, value: str) -> int:
        """Return the place of a value's column among those of the attribute.

        Raises:
            ValueError: Not one of the codes; says what is expected.
        """
        if value not in self.codes:
            raise ValueError(f"not one of {', '.join(self.codes)}")
        return self._places[value]


@dataclass(frozen=True)
class LeftOut:
    """An attribute of the file that is no feature."""

    name: str


Field = Number | Category | LeftOut


@dataclass(frozen=True)
class Table:
    """A published table: how its lines are read and what its fields become.

    Attributes:
        name: Name of the set.
        separator: Between the fields of a line.
        fields: One for each field of a line but the last, which is the label.
        classes: The labels in the file, in the order of the classes, and their names.
        licence: Licence of the data.
        source: Where they come from.
    """

    name: str
    separator: str
    fields: Sequence[Field]
    classes: Mapping[str, str]
    licence: str
    source: str

    def dataset(self, text: str, where: str) -> Dataset:
        """Return the whole set of a file's text; blank lines are passed over.

        Args:
            text: Content of the file.
            where: The file's name, for errors.

        Raises:
            DataError: A line of the wrong length, or a value that its field does not have; names
                the line and the attribute.
        """
        known = {label: index for index, label in enumerate(self.classes)}
        rows: list[list[str]] = []
        lines: list[str] = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            lines.append(f"{where}: line {number}")
            rows.append([value.strip() for value in line.split(self.separator)])
            if len(rows[-1]) != len(self.fields) + 1:
                raise DataError(
                    f"{lines[-1]} has {len(rows[-1])} fields, not {len(self.fields) + 1}"
                )
            if rows[-1][-1] not in known:
                raise DataError(
                    f"{lines[-1]}, the label is '{rows[-1][-1]}', not one of {', '.join(known)}"
                )
        if not rows:
            raise DataError(f"{where}: holds no samples")
        *columns, labels = zip(*rows, strict=True)
        blocks = [
            _encode(field, values, lines)
            for field, values in zip(self.fields, columns, strict=True)
            if not isinstance(field, LeftOut)
        ]
        attributes, names = _attributes(self.fields)
        return build(
            name=self.name,
            x=torch.from_numpy(np.hstack(blocks)),
            y=torch.tensor([known[label] for label in labels]),
            lower=torch.tensor(0.0),
            upper=torch.tensor(1.0),
            classes=tuple(self.classes.values()),
            split="all",
            licence=self.licence,
            source=self.source,
            feature_names=names,
            attributes=attributes,
        )


def _encode(
    field: Number | Category, values: Sequence[str], lines: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Return the columns of one attribute, (n, columns)."""
    read = []
    for value, line in zip(values, lines, strict=True):
        try:
            read.append(field.read(value))
        except ValueError as error:
            raise DataError(f"{line}, attribute '{field.name}' is '{value}', {error}") from None
    if isinstance(field, Number):
        # Divided by Python in float64 and rounded once: the same bits, and hash, everywhere.
        return np.array(read, dtype=np.float64).astype(np.float32)[:, None]
    return np.eye(len(field.codes), dtype=np.float32)[np.array(read, dtype=np.int64)]


def _attributes(
    fields: Sequence[Field],
) -> tuple[tuple[Attribute, ...], tuple[str, ...]]:
    attributes: list[Attribute] = []
    names: list[str] = []
    for field in fields:
        first = len(names)
        if isinstance(field, LeftOut):
            continue
        if isinstance(field, Number):
            names.append(field.name)
            attributes.append(
                Attribute(
                    field.name,
                    (first,),
                    protected=field.protected,
                    immutable=field.immutable,
                )
            )
        else:
            names.extend(f"{field.name}={meaning}" for meaning in field.codes.values())
            columns = tuple(range(first, len(names)))
            attributes.append(
                Attribute(field.name, columns, one_hot=True, protected=field.protected)
            )
    return tuple(attributes), tuple(names)

"""What the columns of tabular data stand for: attributes, of which an attacker may move some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from robustbench_c.errors import DataError


@dataclass(frozen=True)
class Attribute:
    """One attribute of tabular data, and the columns it takes.

    Attributes:
        name: Its name; its columns are called `name`, or `name=category` each.
        columns: Their places in a sample, ascending.
        one_hot: Whether exactly one of the columns is 1 and the others are 0; else it is a number
            in one column.
        protected: Whether a decision should not hang on it (sex, age ...).
        immutable: Whether an attacker may not change it. What is protected, and what is one-hot
            (a category does not change by 0.05), always is.
    """

    name: str
    columns: tuple[int, ...]
    one_hot: bool = False
    protected: bool = False
    immutable: bool = False

    def __post_init__(self) -> None:
        if not self.columns or list(self.columns) != sorted(set(self.columns)):
            raise DataError(f"attribute '{self.name}': its columns have to ascend, at least one")
        if self.columns[0] < 0:
            raise DataError(f"attribute '{self.name}': there is no column {self.columns[0]}")
        if len(self.columns) > 1 and not self.one_hot:
            raise DataError(
                f"attribute '{self.name}': a number takes one column, not {len(self.columns)}"
            )
        object.__setattr__(self, "immutable", self.immutable or self.protected or self.one_hot)


def check_attributes(
    name: str, x: torch.Tensor, attributes: Sequence[Attribute], feature_names: Sequence[str]
) -> None:
    """Check that attributes and names of features fit the samples.

    Args:
        name: Name of the set, for errors.
        x: Samples, (n, *shape).
        attributes: Some or all columns belong to one.
        feature_names: Empty, or one for each column.

    Raises:
        DataError: Samples that are not vectors, a number of names other than of columns, two
            features or attributes of one name, a column in two attributes or in none of the
            samples, or a one-hot group that is not one-hot in some sample.
    """
    if not (attributes or feature_names):
        return
    if x.ndim != 2:
        raise DataError(f"{name}: has named features, but its samples are no vectors")
    if feature_names and len(feature_names) != x.shape[1]:
        raise DataError(f"{name}: {len(feature_names)} names for {x.shape[1]} features")
    for what, given in (
        ("features", feature_names),
        ("attributes", [attribute.name for attribute in attributes]),
    ):
        if len(set(given)) < len(given):
            twice = next(key for place, key in enumerate(given) if key in given[:place])
            raise DataError(f"{name}: two {what} are called '{twice}'")
    owner: dict[int, str] = {}
    for attribute in attributes:
        for column in attribute.columns:
            if column >= x.shape[1]:
                raise DataError(
                    f"{name}: attribute '{attribute.name}' has column {column}, "
                    f"but samples have {x.shape[1]}"
                )
            if column in owner:
                raise DataError(
                    f"{name}: column {column} belongs to both '{owner[column]}' and "
                    f"'{attribute.name}'"
                )
            owner[column] = attribute.name
        if attribute.one_hot:
            _check_one_hot(name, x[:, list(attribute.columns)], attribute.name)


def _check_one_hot(name: str, group: torch.Tensor, attribute: str) -> None:
    wrong = ~((group == 0) | (group == 1)).all(1) | (group.sum(1) != 1)
    if bool(wrong.any()):
        raise DataError(
            f"{name}: sample {int(wrong.int().argmax())} is not one-hot in attribute '{attribute}'"
        )

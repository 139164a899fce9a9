"""Data of one's own as a CSV file of numbers with a label column."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from robustbench_c.data.dataset import Dataset, build
from robustbench_c.errors import DataError

Label = TypeVar("Label", str, int)

_LABEL_COLUMNS = ("label", "target", "class", "y")
_MISSING = ("", "na", "nan", "null")


def load_csv(
    path: Path, label_column: str | None = None, box: tuple[float, float] | None = None
) -> Dataset:
    """Load a comma-separated file with a header: one label column, every other one a feature.

    Whole numbers from 0 up are taken as the labels they are, and never renumbered. Other labels
    are class names, sorted (as numbers, if they are whole and one is negative).

    Args:
        path: The file, UTF-8.
        label_column: By default the one column called label, target, class or y.
        box: Lower and upper bound of every feature; by default each feature's range in the file.

    Raises:
        DataError: Not such a file; no label column, or more than one candidate; a value that is
            missing, or a feature that is not a finite number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            columns = next(reader, [])
            label_index = _label_index(path, columns, label_column)
            rows = ((reader.line_num, row) for row in reader if row)
            values, labels, lines = _parse(path, columns, label_index, rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from error
    if not labels:
        raise DataError(f"{path}: holds no samples")
    y, classes = _number(path, columns[label_index], labels, lines)
    # Parsed by Python and rounded once, to float32: the same bits, and hash, with every version.
    x = torch.tensor(values, dtype=torch.float32)
    return build(
        name=path.stem,
        x=x,
        y=y,
        lower=torch.tensor(float(box[0])) if box else x.amin(0),
        upper=torch.tensor(float(box[1])) if box else x.amax(0),
        classes=classes,
        split="all",
        licence="unknown",
        source=path.name,
        feature_names=tuple(name for i, name in enumerate(columns) if i != label_index),
    )


def _label_index(path: Path, columns: list[str], wanted: str | None) -> int:
    for position, name in enumerate(columns, start=1):
        if not name.strip():
            raise DataError(f"{path}: column {position} has no name (an index? save without it)")
        if columns.index(name) + 1 < position:
            raise DataError(f"{path}: two columns are called '{name}'")
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    if wanted is not None and wanted not in columns:
        raise DataError(f"{path}: has no column '{wanted}', only: {shown}")
    found = [name for name in columns if name.lower() in _LABEL_COLUMNS]
    if wanted is None and len(found) != 1:
        which = f"'{found[0]}' and '{found[1]}' can both" if found else f"no column ({shown}) can"
        raise DataError(f"{path}: {which} be the label; name it with --label-column")
    if len(columns) == 1:
        raise DataError(f"{path}: holds no feature columns")
    return columns.index(found[0] if wanted is None else wanted)


def _parse(
    path: Path, columns: list[str], label_index: int, rows: Iterable[tuple[int, list[str]]]
) -> tuple[npt.NDArray[np.float64], list[str], list[int]]:
    """Return the features (n, d), and each row's label and line number."""
    values, labels, lines = array("d"), [], []
    features = columns[:label_index] + columns[label_index + 1 :]
    for line, row in rows:
        if len(row) != len(columns):
            raise DataError(f"{path}: line {line} has {len(row)} fields, not {len(columns)}")
        labels.append(row.pop(label_index).strip())
        lines.append(line)
        if labels[-1].lower() in _MISSING:
            raise DataError(f"{path}: line {line}, column '{columns[label_index]}' is missing")
        try:
            values.extend(map(float, row))
        except ValueError:
            raise DataError(f"{path}: line {line}, {_fault(features, row)}") from None
    x = np.frombuffer(values).reshape(-1, len(features))
    for row_index, position in np.argwhere(~np.isfinite(x)):
        raise DataError(
            f"{path}: line {lines[row_index]}, column '{features[position]}' is "
            f"{x[row_index, position]}, not a finite number"
        )
    return x, labels, lines


def _fault(columns: list[str], row: list[str]) -> str:
    for column, field in zip(columns, row, strict=True):
        try:
            float(field)
        except ValueError:
            missing = field.strip().lower() in _MISSING
            return f"column '{column}' is " + ("missing" if missing else f"'{field}', not a number")
    raise AssertionError("every field is a number")


def _number(
    path: Path, column: str, labels: list[str], lines: list[int]
) -> tuple[torch.Tensor, tuple[str, ...] | None]:
    """Turn labels into class indices; None for the names of classes that are the indices."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return _index(labels)
    for label, number, line in zip(labels, numbers, lines, strict=True):
        if not number.is_integer() or abs(number) > 2**53:
            raise DataError(
                f"{path}: line {line}, column '{column}' is '{label}'; a label is a name or a "
                "whole number"
            )
    whole = [int(number) for number in numbers]
    if min(whole) >= 0:
        return torch.tensor(whole), None
    return _index(whole)


def _index(labels: Sequence[Label]) -> tuple[torch.Tensor, tuple[str, ...]]:
    classes = sorted(set(labels))
    index = {label: position for position, label in enumerate(classes)}
    return torch.tensor([index[label] for label in labels]), tuple(str(c) for c in classes)

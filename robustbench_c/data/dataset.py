"""The one form every set of data takes, and the checks each passes before it takes it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from robustbench_c.data.attributes import Attribute, check_attributes
from robustbench_c.errors import DataError

MAX_UNNAMED_CLASSES = 100_000
"""A label above this, without class names, is a mistake and not a class."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, labels and the box of legal inputs, in the data's own units.

    Nothing is normalised here: mean and standard deviation belong to the model, so that `eps` and
    the box keep the units of the data.

    Attributes:
        name: Registry name, or the stem of the file or folder.
        x: Samples, float32, (n, *shape), contiguous, on the CPU.
        y: Labels, int64, (n,), each in [0, n_classes).
        lower: Least legal input, float32, () or the shape of one sample.
        upper: Greatest legal input, float32, () or the shape of one sample.
        classes: Class names, by label.
        ids: int64, (n,): the index of each sample in the whole set. A subset keeps them.
        sha256: Content hash of the whole set (see `content_hash`). A subset keeps it.
        split: "train", "test" or "all".
        licence: Licence of the data, as far as it is known.
        source: Where the data come from.
        feature_names: Names of the features of tabular data, else ().
        attributes: What the columns of tabular data stand for, as far as it is known, else ().
    """

    name: str
    x: torch.Tensor
    y: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    classes: tuple[str, ...]
    ids: torch.Tensor
    sha256: str
    split: str
    licence: str
    source: str
    feature_names: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def n_classes(self) -> int:
        """Number of class names, at least 2."""
        return len(self.classes)

    @property
    def protected_columns(self) -> tuple[int, ...]:
        """Columns of protected attributes, ascending."""
        return _columns(a for a in self.attributes if a.protected)

    @property
    def immutable_columns(self) -> tuple[int, ...]:
        """Columns that an attacker may not change unless told otherwise, ascending."""
        return _columns(a for a in self.attributes if a.immutable)

    @property
    def immutable_mask(self) -> torch.Tensor | None:
        """True at the immutable columns, bool, of the shape of a sample; None without any."""
        if not self.immutable_columns:
            return None
        mask = torch.zeros(self.shape, dtype=torch.bool)
        mask[list(self.immutable_columns)] = True
        return mask

    def subset(self, indices: Sequence[int] | torch.Tensor) -> Dataset:
        """Return the samples at these positions, in this order, with their ids.

        Args:
            indices: Distinct positions in [0, n).

        Raises:
            DataError: No position, one out of range, or one twice.
        """
        index = torch.as_tensor(indices)
        if index.ndim != 1 or index.numel() == 0 or index.dtype == torch.bool:
            raise DataError(f"{self.name}: a subset needs a non-empty list of sample positions")
        if index.is_floating_point() or index.is_complex():
            raise DataError(f"{self.name}: sample positions are integers, not {index.dtype}")
        index = index.to("cpu", torch.int64)
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= len(self):
            wrong = low if low < 0 else high
            raise DataError(f"{self.name}: no sample at {wrong}, the set has {len(self)}")
        if len(set(index.tolist())) < len(index):
            raise DataError(f"{self.name}: a subset holds each sample at most once")
        return dataclasses.replace(self, x=self.x[index], y=self.y[index], ids=self.ids[index])

    def head(self, n: int) -> Dataset:
        """Return the first `n` samples (a view, not a copy).

        Raises:
            DataError: `n` is below 1 or above the number of samples.
        """
        if not 1 <= n <= len(self):
            raise DataError(
                f"{self.name} ({self.split}): {n} samples asked for, the set has {len(self)}"
            )
        return dataclasses.replace(self, x=self.x[:n], y=self.y[:n], ids=self.ids[:n])


def _columns(attributes: Iterable[Attribute]) -> tuple[int, ...]:
    return tuple(sorted(column for attribute in attributes for column in attribute.columns))


def build(
    *,
    name: str,
    x: torch.Tensor,
    y: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    classes: tuple[str, ...] | None,
    split: str,
    licence: str,
    source: str,
    feature_names: tuple[str, ...] = (),
    attributes: tuple[Attribute, ...] = (),
) -> Dataset:
    """Check a whole set, hash it and number its samples.

    Args:
        name: Also the beginning of each error.
        x: Floating point, (n, *shape), on any device; becomes float32 on the CPU.
        y: Integers, (n,).
        lower: () or any shape that broadcasts to that of a sample.
        upper: As `lower`.
        classes: Class names by label; None names them "0", "1", ... up to the greatest label.
        split: "train", "test" or "all".
        licence: Licence of the data.
        source: Where the data come from.
        feature_names: Names of the features, for tabular data.
        attributes: What their columns stand for.

    Raises:
        DataError: Empty; lengths that differ; x that is not floating point, or not finite, or
            outside of its box; labels that are not integers or have no class; names or attributes
            that do not fit the samples (see `check_attributes`).
    """
    if not x.is_floating_point():
        raise DataError(f"{name}: x is {x.dtype}, not floating point")
    if x.ndim < 2 or x.numel() == 0:
        raise DataError(
            f"{name}: x has shape {tuple(x.shape)}, not (n, ...) with at least one sample of at "
            "least one feature"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise DataError(f"{name}: labels are {y.dtype}, not integers")
    if y.shape != (len(x),):
        raise DataError(f"{name}: x holds {len(x)} samples, but y has shape {tuple(y.shape)}")
    x = x.detach().to("cpu", torch.float32).contiguous()
    y = y.to("cpu", torch.int64).contiguous()
    classes = _class_names(name, y, classes)
    shape = tuple(x.shape[1:])
    lower, upper = _bound(name, "lower", lower, shape), _bound(name, "upper", upper, shape)
    if not bool((lower <= upper).all()):
        raise DataError(f"{name}: the box has a lower bound above its upper bound")
    check_attributes(name, x, attributes, feature_names)
    _check_values(name, x, lower, upper, feature_names)
    return Dataset(
        name=name,
        x=x,
        y=y,
        lower=lower,
        upper=upper,
        classes=classes,
        ids=torch.arange(len(x)),
        sha256=content_hash(x, y, lower, upper, classes),
        split=split,
        licence=licence,
        source=source,
        feature_names=feature_names,
        attributes=attributes,
    )


def content_hash(
    x: torch.Tensor,
    y: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    classes: tuple[str, ...],
) -> str:
    """Return the sha256 of a set's content in one canonical byte form.

    The form is the line `robustbench-c dataset 1`; then for x, y, lower and upper a line
    `<name> <dtype> <shape as a JSON list>` and the little-endian values in C order (`<f4`, `<i8`
    for y); then the class names as one JSON list in ASCII. Names, splits and licences are not
    content.
    """
    digest = hashlib.sha256(b"robustbench-c dataset 1\n")
    for field, tensor, dtype in (
        ("x", x, "<f4"),
        ("y", y, "<i8"),
        ("lower", lower, "<f4"),
        ("upper", upper, "<f4"),
    ):
        digest.update(f"{field} {dtype} {json.dumps(list(tensor.shape))}\n".encode("ascii"))
        digest.update(np.ascontiguousarray(tensor.numpy().reshape(-1), dtype=dtype).data)
    digest.update(json.dumps(list(classes)).encode("ascii"))
    return digest.hexdigest()


def _class_names(name: str, y: torch.Tensor, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    first_bad = int((y < 0).int().argmax())
    if y[first_bad] < 0:
        raise DataError(f"{name}: sample {first_bad} has the label {int(y[first_bad])}, below 0")
    if classes is not None and len(classes) < 2:
        raise DataError(f"{name}: {len(classes)} class name(s); a classifier has at least 2")
    if classes is not None and len(set(classes)) < len(classes):
        raise DataError(f"{name}: two classes have the same name")
    limit = MAX_UNNAMED_CLASSES if classes is None else len(classes)
    top = int(y.argmax())
    if y[top] >= limit:
        raise DataError(
            f"{name}: sample {top} has the label {int(y[top])}, but "
            + (f"only {limit} classes are named" if classes else f"{limit - 1} is the greatest")
        )
    return tuple(classes or (str(label) for label in range(max(2, int(y[top]) + 1))))


def _bound(name: str, which: str, bound: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    bound = bound.detach().to("cpu", torch.float32)
    if not bool(bound.isfinite().all()):
        raise DataError(f"{name}: the box's {which} bound is not finite everywhere")
    if bound.ndim == 0:
        return bound
    try:
        return bound.expand(shape).contiguous()
    except RuntimeError:
        raise DataError(
            f"{name}: the box's {which} bound has shape {tuple(bound.shape)}, a sample has {shape}"
        ) from None


def _check_values(
    name: str,
    x: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    feature_names: tuple[str, ...],
) -> None:
    # amin and amax pass NaN on, and a comparison with NaN is false: one pass finds every fault.
    if bool((x.amin(0) >= lower).all()) and bool((x.amax(0) <= upper).all()):
        return
    outside = ~((x >= lower) & (x <= upper))
    sample, *position = outside.nonzero()[0].tolist()
    value = float(x[(sample, *position)])
    feature = f"'{feature_names[position[0]]}'" if feature_names else str(tuple(position))
    at = f"{name}: sample {sample}, feature {feature} is {value:.9g}"
    if not np.isfinite(value):
        raise DataError(f"{at}, not a finite number")
    low, high = (float(b.expand(x.shape[1:])[tuple(position)]) for b in (lower, upper))
    raise DataError(
        f"{at}, outside of its box [{low:.9g}, {high:.9g}]; the box is in the data's own units, "
        "and normalisation belongs to the model"
    )

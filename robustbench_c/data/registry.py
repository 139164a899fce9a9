"""Data by name, or by path."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from robustbench_c.data import adult, bundled, fashion_mnist, german_credit
from robustbench_c.data.attributes import Attribute
from robustbench_c.data.csv_file import load_csv
from robustbench_c.data.dataset import Dataset, build
from robustbench_c.data.image_folder import load_image_folder
from robustbench_c.data.npz import load_npz
from robustbench_c.errors import DataError, UsageError, did_you_mean

SPLITS = ("train", "test", "all")


@dataclass(frozen=True)
class Entry:
    """A set known by name.

    Attributes:
        description: One line: what it holds.
        licence: Licence of the data.
        splits: The splits it comes in.
        load: Returns one of these splits.
        load_from: Returns one of them from a given folder, where the files may lie in one.
    """

    description: str
    licence: str
    splits: tuple[str, ...]
    load: Callable[[str], Dataset]
    load_from: Callable[[str, Path], Dataset] | None = None


REGISTRY: dict[str, Entry] = {
    "fashion-mnist-mini": Entry(
        "the first 1,000 images of Fashion-MNIST's test set, shipped with the package",
        fashion_mnist.LICENCE,
        ("test",),
        fashion_mnist.load_mini,
    ),
    "fashion-mnist": Entry(
        "28x28 grey images of clothes, 10 classes, 60,000 for training and 10,000 for testing",
        fashion_mnist.LICENCE,
        ("train", "test"),
        fashion_mnist.load_full,
        fashion_mnist.load_full,
    ),
    "digits": Entry(
        "8x8 grey images of handwritten digits, 10 classes, 1,797 in all",
        bundled.LICENCE,
        SPLITS,
        bundled.load_digits,
    ),
    "breast-cancer": Entry(
        "30 measurements of cell nuclei, 2 classes, 569 in all (tabular)",
        bundled.LICENCE,
        SPLITS,
        bundled.load_breast_cancer,
    ),
    "german-credit": Entry(
        "61 columns of 20 attributes of a loan applicant, 2 classes, 1,000 in all (tabular, with "
        "protected attributes), shipped with the package",
        german_credit.LICENCE,
        SPLITS,
        german_credit.load_german_credit,
    ),
    "adult": Entry(
        "91 columns of 12 attributes of a person, 2 classes of income, 32,561 in all (tabular, "
        "with protected attributes)",
        adult.LICENCE,
        SPLITS,
        adult.load_adult,
        adult.load_adult,
    ),
}


def names() -> list[str]:
    """Return the names that `load` knows."""
    return list(REGISTRY)


def load(
    name_or_path: str,
    *,
    split: str = "test",
    data_dir: Path | None = None,
    label_column: str | None = None,
    box: tuple[float, float] | None = None,
) -> Dataset:
    """Load a set by name, or from a path: an `.npz`, a `.csv`, or a folder of images by class.

    Args:
        name_or_path: A name goes before a path; `./digits` is always a path.
        split: "train", "test" or "all", where a named set has it. A path has no splits: it is
            loaded whole, whatever is asked for, and its `split` is "all".
        data_dir: Folder of the IDX files of `fashion-mnist`, or of the file of `adult`.
        label_column: Label column of a `.csv`.
        box: Lower and upper bound of every feature of an `.npz` or `.csv`.

    Raises:
        DataError: There is no such set, or it cannot be read, or it fails the checks of `build`.
        UsageError: An argument that this kind of data does not take.
    """
    if split not in SPLITS:
        raise UsageError(f"no split '{split}'; {did_you_mean(split, list(SPLITS))}")
    kind = "name" if name_or_path in REGISTRY else _kind(name_or_path)
    takers = [name for name, entry in REGISTRY.items() if entry.load_from]
    if data_dir is not None and name_or_path not in takers:
        raise UsageError(f"{name_or_path}: takes no data folder, only {' and '.join(takers)} do")
    if label_column is not None and kind != "csv":
        raise UsageError(f"{name_or_path}: takes no label column, only a .csv file does")
    if box is not None and kind not in ("csv", "npz"):
        raise UsageError(f"{name_or_path}: has its own box; only a .npz or .csv file takes another")
    path = Path(name_or_path)
    match kind:
        case "csv":
            return load_csv(path, label_column, box)
        case "npz":
            return load_npz(path, box)
        case "folder":
            return load_image_folder(path)
    entry = REGISTRY[name_or_path]
    if split not in entry.splits:
        raise DataError(f"{name_or_path}: has no split '{split}', only: {', '.join(entry.splits)}")
    if data_dir is not None and entry.load_from:
        return entry.load_from(split, data_dir)
    return entry.load(split)


def _kind(name_or_path: str) -> str:
    path = Path(name_or_path)
    suffix = path.suffix.lower()
    try:
        folder, file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if folder:
        return "folder"
    if file:
        if suffix in (".npz", ".csv"):
            return suffix[1:]
        raise DataError(f"{path}: not a .npz file, a .csv file or a folder of images by class")
    if suffix in (".npz", ".csv") or os.sep in name_or_path:
        raise DataError(f"{path}: no such file or folder")
    raise DataError(f"no dataset '{name_or_path}'; {did_you_mean(name_or_path, names())}")


def from_tensors(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    name: str = "tensors",
    lower: float | torch.Tensor = 0.0,
    upper: float | torch.Tensor = 1.0,
    classes: tuple[str, ...] | None = None,
    feature_names: tuple[str, ...] = (),
    attributes: tuple[Attribute, ...] = (),
) -> Dataset:
    """Make a set of tensors at hand. They are copied.

    Args:
        x: Floating point, (n, *shape), on any device, in the data's own units.
        y: Integer labels, (n,).
        name: How errors and records call the set.
        lower: Least legal input: a number, or anything that broadcasts to the shape of a sample.
        upper: Greatest legal input, likewise.
        classes: Class names by label. None names them "0", "1", ... up to the greatest label in
            `y`, which may be fewer than the model has.
        feature_names: Names of the features, for samples that are vectors.
        attributes: What their columns stand for: which are one-hot, protected or immutable.

    Raises:
        DataError: The set fails the checks of `build`.
    """
    return build(
        name=name,
        x=x.detach().clone(),
        y=y.detach().clone(),
        lower=torch.as_tensor(lower, dtype=torch.float32).clone(),
        upper=torch.as_tensor(upper, dtype=torch.float32).clone(),
        classes=classes,
        split="all",
        licence="unknown",
        source="tensors in memory",
        feature_names=feature_names,
        attributes=attributes,
    )

"""Data of one's own as a numpy archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustbench_c.data.dataset import Dataset, build
from robustbench_c.errors import DataError

_FIELDS = ("x", "y", "lower", "upper", "classes")
_BOMB_BYTES = 1 << 30
_BOMB_RATIO = 100


def load_npz(path: Path, box: tuple[float, float] | None = None) -> Dataset:
    """Load an `.npz` with `x` (n, ...) and `y` (n,), and optionally `lower`, `upper`, `classes`.

    Floating-point `x` is taken as it is. `x` of uint8 is divided by 255, and its box, if one is
    given, is in these scaled units too. Without `classes` (strings, by label) the classes are named
    by number up to the greatest label.

    Args:
        path: The file. It is never unpickled.
        box: Lower and upper bound of every feature, instead of the file's own; without either the
            box is [0, 1].

    Raises:
        DataError: The file is damaged, lacks an array or holds one of the wrong kind, or the set
            fails the checks of `build`.
    """
    arrays = _read(path)
    for field in ("x", "y"):
        if field not in arrays:
            raise DataError(
                f"{path}: holds no array '{field}', only: {', '.join(arrays) or 'none'}"
            )
    lower, upper = (
        (np.float64(box[0]), np.float64(box[1]))
        if box
        else (arrays.get("lower", np.float64(0)), arrays.get("upper", np.float64(1)))
    )
    for field, bound in (("lower", lower), ("upper", upper)):
        if bound.dtype.kind not in "fiu":
            raise DataError(f"{path}: '{field}' is {bound.dtype}, not a number")
    x = arrays["x"]
    if x.dtype == np.uint8:
        if np.any(lower < 0) or np.any(upper > 1):
            raise DataError(f"{path}: x is uint8 and scaled to [0, 1]; its box has to lie within")
        x = x.astype(np.float32) / np.float32(255)
    elif x.dtype.kind != "f":
        raise DataError(f"{path}: x is {x.dtype}; save it as float32, or as uint8 for 0..255")
    y = arrays["y"]
    if y.dtype.kind not in "iu":
        raise DataError(f"{path}: y is {y.dtype}, not integer labels (put names into 'classes')")
    return build(
        name=path.stem,
        x=torch.from_numpy(x.astype(np.float64 if x.dtype.itemsize > 4 else np.float32)),
        y=torch.from_numpy(y.astype(np.int64)),
        lower=torch.from_numpy(np.asarray(lower, dtype=np.float32)),
        upper=torch.from_numpy(np.asarray(upper, dtype=np.float32)),
        classes=_class_names(path, arrays.get("classes")),
        split="all",
        licence="unknown",
        source=path.name,
    )


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size):
            raise DataError(f"{path}: refused, it unpacks to {unpacked >> 20} MiB")
        with np.load(path, allow_pickle=False) as file:
            arrays = {field: file[field] for field in _FIELDS if field in file}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
    except DataError:
        raise
    # The header of a damaged array is parsed as Python, which can raise anything.
    except Exception as error:
        raise DataError(f"{path}: cannot be unpacked ({error})") from error
    for field, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: '{field}' is not a numpy array")
    return arrays


def _class_names(path: Path, classes: npt.NDArray[Any] | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    if classes.dtype.kind != "U" or classes.ndim != 1:
        raise DataError(f"{path}: 'classes' has to be a list of strings")
    return tuple(str(name) for name in classes)

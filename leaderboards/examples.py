"""Stored adversarial examples, read without torch: safetensors by its own plain format.

A file is the length of a JSON header (8 bytes, little-endian), the header, and the tensors.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from leaderboards.errors import RecordError
from leaderboards.files import refuse_escape
from leaderboards.sample_ids import Ids

FOLDER = "adversarial"
MAX_BYTES = 4 << 30
_MAX_HEADER = 1 << 16
_TYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "F32": np.dtype("<f4")}
_WANTED = {"ids": "I64", "clean": "F32", "adversarial": "F32"}

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StoredExamples:
    """The examples of one shard; read from disk where they are looked at.

    Attributes:
        ids: (n,).
        clean: Clean samples, (n, *shape).
        adversarial: Adversarial examples, likewise.
    """

    ids: Ids
    clean: Samples
    adversarial: Samples


def example_path(folder: Path, step: str, shard: str) -> Path:
    """Where the examples of a shard lie, if a run keeps them.

    Args:
        folder: Of the run.
        step: The shard's.
        shard: Its file's name.
    """
    return folder / FOLDER / step / Path(shard).with_suffix(".safetensors").name


def keeps_examples(folder: Path) -> bool:
    """Whether a run keeps adversarial examples, of some samples at least."""
    return any((folder / FOLDER).glob("*/*.safetensors"))


def read_examples(folder: Path, path: Path, shape: tuple[int, ...]) -> StoredExamples:
    """Read a file of examples that anybody may have written.

    Args:
        folder: Of the run.
        path: The file in it.
        shape: Of a sample.

    Raises:
        RecordError: Not such a file, or one of samples of another shape.
    """
    refuse_escape(folder, path)
    try:
        if not path.is_file():
            raise RecordError("not a plain file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RecordError(f"{size} bytes; the limit is {MAX_BYTES}")
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                raise RecordError("not a safetensors file")
            header = _header(file.read(length), size - 8 - length)
        held = {
            name: np.memmap(
                path, _TYPES[_WANTED[name]], "r", 8 + length + begin, shape=tensor_shape
            )
            for name, (begin, tensor_shape) in header.items()
        }
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror or error}") from None
    n = held["ids"].size
    if held["ids"].ndim != 1 or any(held[k].shape != (n, *shape) for k in ("clean", "adversarial")):
        raise RecordError(f"ids and samples are not of shapes (n,) and (n, {shape})")
    return StoredExamples(**held)


def _header(raw: bytes, size: int) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Begin and shape of each tensor; they fill the file without a gap or overlap."""
    try:
        header: Any = json.loads(raw)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise RecordError("not a safetensors file")
    header.pop("__metadata__", None)
    if set(header) != set(_WANTED):
        raise RecordError("does not hold ids, clean and adversarial alone")
    found, spans = {}, []
    for name, told in header.items():
        if not isinstance(told, dict) or told.get("dtype") != _WANTED[name]:
            raise RecordError(f"{name} is not {_WANTED[name]}")
        shape, offsets = told.get("shape"), told.get("data_offsets")
        if not _whole(shape) or not _whole(offsets) or len(offsets) != 2 or len(shape) > 8:
            raise RecordError(f"{name} has no legal shape and offsets")
        if offsets[1] - offsets[0] != math.prod(shape) * _TYPES[told["dtype"]].itemsize:
            raise RecordError(f"{name} of shape {shape} does not fit its bytes")
        if not offsets[1] > offsets[0]:
            raise RecordError(f"{name} is empty")
        spans.append((offsets[0], offsets[1]))
        found[name] = (offsets[0], tuple(shape))
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    if [begin for begin, _ in spans] != ends[:-1] or ends[-1] != size:
        raise RecordError("its tensors do not fill the file: cut short, or more is in it")
    return found


def _whole(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= 2**53 for value in values
    )

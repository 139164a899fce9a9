"""Reading of IDX files, the format of MNIST and its kin.

Format: http://yann.lecun.com/exdb/mnist/ ("The IDX file format"): two zero bytes, a type code, the
number of dimensions, each dimension as a big-endian uint32, then the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustbench_c.errors import DataError

_UINT8 = 0x08
_MAX_BYTES = 1 << 30


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes, unpacked if they are gzipped, whatever the file is called.

    Raises:
        DataError: The file cannot be read, is damaged, or unpacks to more than 1 GiB.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed and path.stat().st_size > _MAX_BYTES:
                raise DataError(f"{path}: larger than 1 GiB, no IDX file of images is")
            raw = gzip.GzipFile(fileobj=file).read(_MAX_BYTES + 1) if packed else file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if len(raw) > _MAX_BYTES:
        raise DataError(f"{path}: unpacks to more than 1 GiB, no IDX file of images does")
    return raw


def parse_idx(raw: bytes, ndim: int, where: str) -> npt.NDArray[np.uint8]:
    """Return the array of an unpacked IDX file of unsigned bytes.

    Args:
        raw: The whole file.
        ndim: The number of dimensions it must have.
        where: The file's name, for errors.

    Returns:
        A read-only array over `raw`.

    Raises:
        DataError: The header is not that of such a file, or the length contradicts it.
    """
    start = 4 + 4 * ndim
    if len(raw) < start or raw[:4] != bytes((0, 0, _UINT8, ndim)):
        raise DataError(f"{where}: not an IDX file of unsigned bytes with {ndim} dimension(s)")
    shape = struct.unpack(f">{ndim}I", raw[4:start])
    expected = start + math.prod(shape)
    if len(raw) != expected:
        fault = "truncated" if len(raw) < expected else "too long"
        raise DataError(f"{where}: {fault}, {len(raw)} bytes where its header says {expected}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)

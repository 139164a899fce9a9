"""Make the packaged `fashion-mnist-mini` anew from the test set's IDX files.

Its two files are the first 1,000 images and labels, again as gzipped IDX files, with no time and no
name in their headers: the same bytes each time (with the same zlib).
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

from robustbench_c.data.fashion_mnist import ASSETS, DEBIAN_FOLDER, FILES, MINI_FILES
from robustbench_c.data.idx import read_bytes

SAMPLES = 1_000


def shorten(raw: bytes, samples: int) -> bytes:
    """Return an IDX file of unsigned bytes cut down to its first samples."""
    ndim = raw[3]
    start = 4 + 4 * ndim
    count, *shape = struct.unpack(f">{ndim}I", raw[4:start])
    size = (len(raw) - start) // count
    header = raw[:4] + struct.pack(f">{ndim}I", samples, *shape)
    return header + raw[start : start + samples * size]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=DEBIAN_FOLDER, help="folder of t10k-*.gz")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    for whole, mini in zip(FILES["test"], MINI_FILES, strict=True):
        raw = shorten(read_bytes(args.source / f"{whole.name}.gz"), SAMPLES)
        path = args.out / f"{mini.name}.gz"
        with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
            packed.write(raw)


if __name__ == "__main__":
    main()

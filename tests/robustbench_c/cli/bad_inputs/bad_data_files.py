"""Bad data: archives of arrays, tables, folders of images, files of known sets."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from bad_cases import ESCAPE
from bad_makers import JUNK, Make, Runs, cut, data, huge, loop, text, zero

CSV = "a,b,c,d,label\n0,0,0,0,0\n1,1,1,1,1\n"


def arrays(**changes: Any) -> Make:
    """A small .npz of three samples, with changes."""
    whole = {"x": np.full((3, 4), 0.5, np.float32), "y": np.array([0, 1, 0])} | changes
    kept = {name: value for name, value in whole.items() if value is not None}

    def make(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **kept)

    return make


def bomb(path: Path) -> None:
    """A member of 2 GiB of zeros in 2 MB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(128):
            member.write(bytes(1 << 24))


def npy_header(header: str) -> Make:
    """An .npz whose x.npy says of itself what it is not."""

    def make(path: Path) -> None:
        encoded = header.encode().ljust(118 - 1) + b"\n"
        member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", member)
            archive.writestr("y.npy", member)

    return make


def images(*entries: tuple[str, bytes]) -> Make:
    """A folder of files."""

    def make(path: Path) -> None:
        path.mkdir()
        for name, content in entries:
            place = path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    return make


def png(size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new(mode, size).save(out, "PNG")
    return out.getvalue()


def big_png() -> bytes:
    """A picture whose header says 50,000 x 50,000."""
    whole = bytearray(png())
    whole[16:24] = struct.pack(">II", 50_000, 50_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


def huge_idx(path: Path) -> None:
    path.mkdir()
    huge(9 << 30)(path / "t10k-images-idx3-ubyte")


DATA_FILES: dict[str, Make] = {
    "good.npz": arrays(),
    "empty.npz": data(b""),
    "junk.npz": data(JUNK),
    "cut.npz": cut(arrays(), 0.5),
    "folder.npz": Path.mkdir,
    "loop.npz": loop,
    "pipe.npz": os.mkfifo,
    "zero.npz": zero,
    "nan.npz": arrays(x=np.full((3, 4), np.nan, np.float32)),
    "inf.npz": arrays(x=np.full((3, 4), np.inf, np.float32)),
    "beyond.npz": arrays(x=np.full((3, 4), 1.5, np.float32)),
    "no-x.npz": arrays(x=None),
    "no-y.npz": arrays(y=None),
    "long-y.npz": arrays(y=np.arange(7)),
    "float-y.npz": arrays(y=np.zeros(3)),
    "text-y.npz": arrays(y=np.array(["a", "b", "c"])),
    "negative-y.npz": arrays(y=np.array([0, -1, 0])),
    "huge-y.npz": arrays(y=np.array([0, 2**62, 0])),
    "unsigned-y.npz": arrays(y=np.array([0, 2**64 - 1, 0], np.uint64)),
    "deep-y.npz": arrays(y=np.zeros((3, 1), np.int64)),
    "none.npz": arrays(x=np.zeros((0, 4), np.float32), y=np.zeros(0, np.int64)),
    "no-features.npz": arrays(x=np.zeros((3, 0), np.float32)),
    "scalar.npz": arrays(x=np.float32(1), y=np.int64(1)),
    "one-axis.npz": arrays(x=np.zeros(3, np.float32)),
    "integers.npz": arrays(x=np.zeros((3, 4), np.int64)),
    "complex.npz": arrays(x=np.zeros((3, 4), np.complex64)),
    "objects.npz": arrays(x=np.array([{}, {}, {}])),
    "code.npz": arrays(x=np.array([Runs()] * 3, dtype=object)),
    "box-nan.npz": arrays(lower=np.float32(np.nan)),
    "box-turned.npz": arrays(lower=np.float32(1), upper=np.float32(0)),
    "box-shape.npz": arrays(lower=np.zeros(7, np.float32)),
    "box-text.npz": arrays(lower=np.array("low")),
    "classes-short.npz": arrays(classes=np.array(["a"])),
    "classes-numbers.npz": arrays(classes=np.arange(2)),
    "classes-same.npz": arrays(classes=np.array(["a", "a"])),
    "classes-escape.npz": arrays(classes=np.array([ESCAPE, "a"]), y=np.array([0, 1, 5])),
    "bomb.npz": bomb,
    "header-huge.npz": npy_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"
    ),
    "header-negative.npz": npy_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4), }"
    ),
    "header-code.npz": npy_header("{'descr': '<f4', 'fortran_order': exit(3), 'shape': (3, 4), }"),
    "header-deep.npz": npy_header("(" * 110),
    "empty.csv": data(b""),
    "junk.csv": data(JUNK),
    "folder.csv": Path.mkdir,
    "loop.csv": loop,
    "pipe.csv": os.mkfifo,
    "header.csv": text("a,b,label\n"),
    "ragged.csv": text(CSV + "1,2,3\n"),
    "word.csv": text(CSV + "1,x,1,1,1\n"),
    "nan.csv": text(CSV + "1,nan,1,1,1\n"),
    "inf.csv": text(CSV + "1,1e999,1,1,1\n"),
    "missing.csv": text(CSV + "1,,1,1,1\n"),
    "no-label.csv": text("a,b\n0,1\n"),
    "two-labels.csv": text("a,label,y\n0,1,1\n"),
    "same-columns.csv": text("a,a,label\n0,1,1\n"),
    "unnamed.csv": text(",a,label\n0,1,1\n"),
    "no-features.csv": text("label\n0\n1\n"),
    "quote.csv": text('a,label\n"0,1\n'),
    "nul.csv": data(b"a,label\n0\0,1\n"),
    "utf-16.csv": data(CSV.encode("utf-16")),
    "long-field.csv": text("a,label\n" + "1" * 200_000 + ",1\n"),
    "escape.csv": text(f"a,label\n{ESCAPE.splitlines()[0]},1\n"),
    "huge-label.csv": text(f"a,label\n0.5,0\n0.25,{'9' * 30}\n"),
    "digits-label.csv": text(f"a,label\n0.5,0\n0.25,{'9' * 5000}\n"),
    "idx-junk": images(("t10k-images-idx3-ubyte", JUNK), ("t10k-labels-idx1-ubyte", JUNK)),
    "idx-cut": images(("t10k-images-idx3-ubyte.gz", gzip.compress(JUNK)[:-20])),
    "idx-huge": huge_idx,
    "adult-junk": images(("adult.data", JUNK)),
    "images-none": Path.mkdir,
    "images-flat": images(("a.png", png())),
    "images-one-class": images(("a/1.png", png())),
    "images-pipe": lambda path: (images(("a/1.png", png()))(path), os.mkfifo(path / "a/2.png")),
    "images-sizes": images(("a/1.png", png()), ("b/1.png", png((5, 5)))),
    "images-modes": images(("a/1.png", png()), ("b/1.png", png(mode="RGB"))),
    "images-junk": images(("a/1.png", png()), ("b/1.png", JUNK)),
    "images-cut": images(("a/1.png", png()), ("b/1.png", png()[:40])),
    "images-text": images(("a/1.png", png()), ("b/1.png", b"")),
    "images-huge": images(("a/1.png", png()), ("b/1.png", big_png())),
}

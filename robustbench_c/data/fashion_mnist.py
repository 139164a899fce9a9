"""Fashion-MNIST, whole and in small, from IDX files whose content is known.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from robustbench_c.data.dataset import Dataset, build
from robustbench_c.data.download import cache_folder, download
from robustbench_c.data.idx import parse_idx, read_bytes
from robustbench_c.errors import DataError

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
LICENCE = "MIT, Copyright 2017 Zalando SE"
SOURCE = "https://github.com/zalandoresearch/fashion-mnist"

ASSETS = Path(__file__).parent / "assets"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


@dataclass(frozen=True)
class IdxFile:
    """An IDX file: its name without ".gz", and the sha256 of its unpacked content.

    The content is what is pinned because packing varies: Debian's .gz files lack the name and time
    that the header of the original ones holds, and are the same otherwise.
    """

    name: str
    sha256: str


FILES = {
    "train": (
        IdxFile(
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
    ),
    "test": (
        IdxFile(
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}
MINI_FILES = (
    IdxFile(
        "fashion-mnist-mini-images-idx3-ubyte",
        "7a6d8e07ea021ec5bc73135ebd0a5770799557ec6f8242d8749c4f32a3cf4643",
    ),
    IdxFile(
        "fashion-mnist-mini-labels-idx1-ubyte",
        "b40abac7ec8228f434940f579deb7cf7b6e3103b5274cb91d1545771f5ef1c8b",
    ),
)


def load_mini(split: str) -> Dataset:
    """Return the first 1,000 images of the test set, from the package itself."""
    images, labels = (_read(ASSETS / f"{file.name}.gz", file) for file in MINI_FILES)
    return _dataset("fashion-mnist-mini", images, labels, split)


def load_full(split: str, data_dir: Path | None = None) -> Dataset:
    """Return the 60,000 training or the 10,000 test images.

    Each split is a set of its own: its ids begin at 0, and its sha256 covers it alone.

    Args:
        split: "train" or "test".
        data_dir: Folder of the IDX files, gzipped or not. By default Debian's folder, then the
            user's cache, and last a download into that cache.

    Raises:
        DataError: The files are not found and cannot be downloaded, or are not the original ones.
    """
    images, labels = (_read(_locate(file, data_dir), file) for file in FILES[split])
    return _dataset("fashion-mnist", images, labels, split)


def _locate(file: IdxFile, data_dir: Path | None) -> Path:
    cache = cache_folder("fashion-mnist")
    for folder in (data_dir,) if data_dir else (DEBIAN_FOLDER, cache):
        for path in (folder / f"{file.name}.gz", folder / file.name):
            if path.is_file():
                return path
    if data_dir:
        raise DataError(f"{data_dir}: holds no {file.name} and no {file.name}.gz")
    target = cache / f"{file.name}.gz"
    try:
        download(
            [mirror + target.name for mirror in MIRRORS], target, lambda path: _read(path, file)
        )
    except DataError as error:
        raise DataError(
            f"fashion-mnist: not on this machine, and {error}; on Debian and Ubuntu run "
            "'apt-get install dataset-fashion-mnist', elsewhere give the folder of its IDX files "
            "with --data-dir"
        ) from error
    return target


def _read(path: Path, file: IdxFile) -> npt.NDArray[np.uint8]:
    raw = read_bytes(path)
    array = parse_idx(raw, ndim=3 if "images" in file.name else 1, where=str(path))
    if hashlib.sha256(raw).hexdigest() != file.sha256:
        raise DataError(
            f"{path}: not the original {file.name}, the sha256 of its content differs; remove it "
            "and get it anew"
        )
    return array


def _dataset(
    name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], split: str
) -> Dataset:
    x = images[:, None].astype(np.float32)
    x /= np.float32(255)
    return build(
        name=name,
        x=torch.from_numpy(x),
        y=torch.from_numpy(labels.astype(np.int64)),
        lower=torch.tensor(0.0),
        upper=torch.tensor(1.0),
        classes=CLASSES,
        split=split,
        licence=LICENCE,
        source=SOURCE,
    )

"""Data of one's own as a folder of images, one subfolder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from robustbench_c.data.dataset import Dataset, build
from robustbench_c.errors import DataError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
_MODES = {"L": "grey", "RGB": "RGB"}


def load_image_folder(path: Path) -> Dataset:
    """Load `<class>/<image>` as (n, 1, h, w) for grey or (n, 3, h, w) for RGB images, in [0, 1].

    Classes are the subfolders, and samples the images within them, both sorted by name. Hidden
    files and folders are passed over. Pixels are taken as they are stored. JPEG decoders differ in
    the last bit, so the hash of such a set may differ between machines.

    Args:
        path: The folder.

    Raises:
        DataError: No subfolders, a file that is not a PNG, JPEG or BMP image, or one whose size
            or mode is not that of the first.
    """
    folders = [entry for entry in _visible(path) if entry.is_dir()]
    if not folders:
        raise DataError(f"{path}: holds no subfolders; put the images of each class into its own")
    loose = [entry for entry in _visible(path) if entry.suffix.lower() in _SUFFIXES]
    if loose:
        raise DataError(f"{loose[0]}: an image outside of the class folders")
    files = [(file, label) for label, folder in enumerate(folders) for file in _visible(folder)]
    if not files:
        raise DataError(f"{path}: holds no images")
    pixels: list[npt.NDArray[np.uint8]] = []
    for file, _ in files:
        pixels.append(_read(file))
        if pixels[-1].shape != pixels[0].shape:
            raise DataError(
                f"{file}: {_describe(pixels[-1])}, but {files[0][0]} is {_describe(pixels[0])}; "
                "all images need one size and mode"
            )
    x = np.stack(pixels).astype(np.float32)
    x /= np.float32(255)
    return build(
        name=path.resolve().name,
        x=torch.from_numpy(x),
        y=torch.tensor([label for _, label in files]),
        lower=torch.tensor(0.0),
        upper=torch.tensor(1.0),
        classes=tuple(folder.name for folder in folders),
        split="all",
        licence="unknown",
        source=path.resolve().name,
    )


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error})") from error


def _read(file: Path) -> npt.NDArray[np.uint8]:
    """Return (channels, h, w)."""
    if file.suffix.lower() not in _SUFFIXES or not file.is_file():
        raise DataError(f"{file}: not a .png, .jpg or .bmp image")
    try:
        with Image.open(file, formats=("PNG", "JPEG", "BMP")) as image:
            if image.mode not in _MODES:
                raise DataError(f"{file}: has mode {image.mode}; convert it to L (grey) or RGB")
            array = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _describe(pixels: npt.NDArray[np.uint8]) -> str:
    channels, height, width = pixels.shape
    return f"{'grey' if channels == 1 else 'RGB'}, {width}x{height}"

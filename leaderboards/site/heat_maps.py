"""Heat maps of explanations: the clean one, the worst that was found, and how wide its box is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from leaderboards.entries import Entry
from leaderboards.errors import RecordError
from leaderboards.files import list_folder, read_bytes
from leaderboards.site.pictures import diverging, is_picture, png

FILE = "explanations.safetensors"
"""What a run about explanations keeps of a few samples: `ids` (int64, (n,)), and of the shape
(n, *shape) in float32 `clean` and, where there are some, `bent`, `lower` and `upper`."""
MOST = 6
"""Samples that are shown."""
_MAX_BYTES = 64 << 20

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeatMaps:
    """What a page shows.

    Attributes:
        shown: For each sample its id and its files by title.
        files: PNG files by name.
        problem: Why there are none although the run kept some.
    """

    shown: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    problem: str | None = None


def heat_maps(entry: Entry) -> HeatMaps:
    """Return the heat maps of a run about explanations of pictures that kept some."""
    path, shape = entry.folder / FILE, entry.manifest.data.shape
    explained = entry.manifest.protocol.explanation is not None
    if not explained or not is_picture(shape):
        return HeatMaps()
    try:
        if path not in list_folder(entry.folder, entry.folder):
            return HeatMaps()
        held = _read(read_bytes(entry.folder, path, _MAX_BYTES), shape)
    except RecordError as error:
        problem = str(error).replace(str(entry.folder), entry.manifest.run_id)
        return HeatMaps(problem=f"The stored explanations are not shown: {problem}")
    known = set(entry.settled.index.tolist())
    made = HeatMaps()
    for place, sample in enumerate(held.pop("ids").tolist()[:MOST]):
        if sample not in known:
            continue
        files = []
        for title, picture in _pictures({k: v[place] for k, v in held.items()}).items():
            name = f"explanation-{sample}-{title.replace(' ', '-')}.png"
            made.files[name] = picture
            files.append((title, name))
        made.shown.append({"sample": sample, "files": files})
    return made


def _pictures(held: dict[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """The maps of a sample; clean and bent share a scale, channels are averaged."""
    flat = {name: value.astype(np.float64).mean(axis=0) for name, value in held.items()}
    scale = max(float(np.abs(flat[k]).max()) for k in ("clean", "bent") if k in flat) or 1.0
    found = {"clean": png(diverging(flat["clean"] / scale))}
    if "bent" in flat:
        found["worst found"] = png(diverging(flat["bent"] / scale))
    if "lower" in flat and "upper" in flat:
        width = ((flat["upper"] - flat["lower"]) / (2 * scale)).clip(0, 1)
        found["box width"] = png(np.rint(255 * (1 - width)).astype(np.uint8))
    return found


def _read(data: bytes, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    try:
        held = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise RecordError(f"{FILE} is damaged: {error}") from None
    ids = held.get("ids")
    if ids is None or ids.dtype != np.int64 or ids.ndim != 1 or "clean" not in held:
        raise RecordError(f"{FILE} does not hold ids, int64 (n,), and clean")
    for name, value in held.items():
        if name != "ids" and (
            name not in ("clean", "bent", "lower", "upper")
            or value.dtype != np.float32
            or value.shape != (ids.size, *shape)
            or not np.isfinite(value).all()
        ):
            raise RecordError(f"{FILE}: {name} is not finite float32 of shape (n, {shape})")
    return held

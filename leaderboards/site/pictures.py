"""Pictures of stored adversarial examples: clean, changed, and what was changed, as PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from leaderboards.entries import Entry
from leaderboards.examples import FOLDER, example_path, read_examples
from leaderboards.manifest import DataInfo
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict

MOST = 12
"""Samples that a page shows examples of: the first broken ones by their ids."""
MOST_FEATURES = 8
"""Features of a sample that is no picture that are shown: those that changed most."""
SIDE = 224
"""Longest side of a picture in pixels; larger ones are made smaller."""

Floats = npt.NDArray[np.float32]
_BLUE, _RED = np.array([33, 102, 172.0]), np.array([178, 24, 43.0])


@dataclass(frozen=True, eq=False)
class Example:
    """An adversarial example of a run.

    Attributes:
        sample: Sample id.
        step: The attack that found it.
        clean: The sample, of the data's shape.
        adversarial: The example, likewise.
    """

    sample: int
    step: str
    clean: Floats
    adversarial: Floats


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether samples of a shape can be looked at: grey or colour, (1 or 3, height, width)."""
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0 and max(shape) <= 4096


def stored_examples(entry: Entry, store: RunStore) -> list[Example]:
    """Return up to `MOST` examples that a run kept of the samples that its steps broke.

    Args:
        entry: The run.
        store: Its record.

    Raises:
        RecordError: A file of examples is damaged, or not about such samples.
    """
    if not (entry.folder / FOLDER).is_dir():
        return []
    settled = entry.settled
    broken = settled[settled["verdict"].isin([Verdict.BROKEN])]
    return sorted(_of_steps(entry, store, broken), key=lambda e: e.sample)[:MOST]


def _of_steps(entry: Entry, store: RunStore, broken: pd.DataFrame) -> Iterator[Example]:
    shape = entry.manifest.data.shape
    for step in dict.fromkeys(broken["settled_by"]):
        wanted = broken.index[broken["settled_by"] == step][:MOST]
        for shard in store.shard_paths(step):
            path = example_path(entry.folder, step, shard.name)
            if not path.exists():
                continue
            held = read_examples(entry.folder, path, shape)
            for place in np.flatnonzero(np.isin(held.ids, wanted)).tolist():
                yield Example(
                    int(held.ids[place]),
                    step,
                    np.nan_to_num(np.array(held.clean[place])),
                    np.nan_to_num(np.array(held.adversarial[place])),
                )


def pictures_of(example: Example, data: DataInfo) -> dict[str, bytes]:
    """Return the PNG files of an example: `clean`, `adversarial` and `difference`.

    In the difference blue is darker and red is lighter, white is unchanged; of colour pictures,
    grey is unchanged. Its scale is that of the largest change in the sample.
    """
    low, high = data.box_lower[0], data.box_upper[1]
    change = example.adversarial.astype(np.float64) - example.clean
    reach = float(np.abs(change).max()) or 1.0
    difference = (
        diverging(change[0] / reach) if len(change) == 1 else _pixels(change, -reach, reach)
    )
    return {
        "clean": png(_pixels(example.clean, low, high)),
        "adversarial": png(_pixels(example.adversarial, low, high)),
        "difference": png(difference),
    }


def changed_features(example: Example) -> list[tuple[int, float, float]]:
    """Return the features that changed most: place, clean value and changed value."""
    clean, changed = example.clean.ravel(), example.adversarial.ravel()
    size = np.abs(changed.astype(np.float64) - clean)
    order = np.argsort(-size, kind="stable")[:MOST_FEATURES]
    return [(int(i), float(clean[i]), float(changed[i])) for i in order.tolist() if size[i] > 0]


def diverging(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return numbers in [-1, 1] as colours: blue, white at 0, red; (h, w) to (h, w, 3)."""
    share = np.abs(values).clip(0, 1)[..., None]
    full = np.where((values < 0)[..., None], _BLUE, _RED)
    colours: npt.NDArray[np.uint8] = np.rint(255 + (full - 255) * share).astype(np.uint8)
    return colours


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return pixels, (h, w) or (h, w, 3), as a PNG file without anything that varies."""
    image, sink = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    image.save(sink, "PNG", optimize=False, compress_level=6)
    return sink.getvalue()


def _pixels(sample: npt.NDArray[np.floating], low: float, high: float) -> npt.NDArray[np.uint8]:
    share = ((sample.astype(np.float64) - low) / ((high - low) or 1.0)).clip(0, 1)
    grey = np.rint(255 * share).astype(np.uint8)
    return grey[0] if len(grey) == 1 else np.ascontiguousarray(np.moveaxis(grey, 0, -1))

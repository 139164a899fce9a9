"""The contact sheet: a few broken samples as a person would look at them."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from leaderboards.files import atomic_write_bytes
from robustbench_c.evaluation.titles import entitle

_COLUMNS = ("original", "perturbation", "adversarial")
_LEAST = 4.8  # inches: narrower than that, a title is a column


def contact_sheet(
    folder: Path,
    x: Tensor,
    adversarial: Tensor,
    labels: list[str],
    predictions: list[str],
    ids: list[int],
    box: tuple[float, float],
    title: str,
) -> None:
    """Write `contact-sheet.png` and `.svg`: original, perturbation, adversarial example, labels.

    Args:
        folder: Where to.
        x: Clean images, (n, 1 or 3, height, width).
        adversarial: Like `x`.
        labels: True class of each.
        predictions: Class predicted on the adversarial example.
        ids: Sample ids.
        box: Smallest and largest legal value, black and white.
        title: Line above all.
    """
    n = len(x)
    figure = Figure(figsize=(max(2.1 * n + 0.6, _LEAST), 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    entitle(figure, f"{title} (perturbation: blue darker, red lighter)", 13)
    axes = figure.subplots(3, n, squeeze=False)
    low, high = box
    grey = x.shape[1] == 1
    change = adversarial - x
    reach = float(change.abs().max()) or 1.0
    for i in range(n):
        shown = (x[i], (change[i] / reach + 1) / 2, adversarial[i])
        captions = (
            f"#{ids[i]}: {labels[i]}",
            f"at most {float(change[i].abs().max()):.3g}",
            f"seen as {predictions[i]}",
        )
        for row, image in enumerate(shown):
            axis = axes[row, i]
            pixels = image.permute(1, 2, 0).numpy()
            if row != 1:
                pixels = ((pixels - low) / ((high - low) or 1.0)).clip(0, 1)
            colours = ("gray", "RdBu_r", "gray")[row] if grey else None
            axis.imshow(pixels[..., 0] if grey else pixels, cmap=colours, vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(captions[row], fontsize=9, color="firebrick" if row == 2 else "black")
    for row, name in enumerate(_COLUMNS):
        axes[row, 0].set_ylabel(name, fontsize=11)
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "robustbench-c"}):
            figure.savefig(
                buffer, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None
            )
        atomic_write_bytes(folder / f"contact-sheet.{kind}", buffer.getvalue())

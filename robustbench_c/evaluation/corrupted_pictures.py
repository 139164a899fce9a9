"""Common corruptions as pictures: accuracy by kind and severity, and what one sample becomes."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attacks.corruption_kinds import KIND, KindName
from attacks.corruptions import corrupt
from leaderboards.changed import CorruptionSummary, classes_under
from leaderboards.files import atomic_write_bytes
from leaderboards.verdicts import CLEAN_STEP
from robustbench_c.data import Dataset
from robustbench_c.evaluation.run import Run
from robustbench_c.evaluation.titles import entitle

HEAT_MAP = "corruption-accuracy"
SHEET = "corruption-sheet"


def draw_accuracy(run: Run) -> None:
    """Write `corruption-accuracy.png` and `.svg`: a heat map of kinds and severities.

    Args:
        run: A finished run about corruptions.
    """
    found, clean = run.summary.corruption, run.summary.clean_accuracy
    if found is None or clean is None or found.mean_accuracy is None:
        return
    kinds, severities = _axes(found)
    value = np.array([cell.accuracy.value for cell in found.cells]).reshape(len(kinds), -1)
    figure = Figure(figsize=(2.6 + 0.95 * len(severities), 1.9 + 0.34 * len(kinds)))
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(value, cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
    for row, column in np.ndindex(*value.shape):
        shade = "black" if value[row, column] > 0.6 else "white"
        text = f"{value[row, column]:.1%}"
        axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=9)
    axes.set_xticks(range(len(severities)), [str(s) for s in severities])
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xlabel("severity")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    manifest = run.store.manifest
    entitle(
        figure,
        f"{_short(manifest.model.name)} on {_short(manifest.data.name)}, {run.summary.samples:,} "
        f"samples; accuracy: clean {clean.value:.1%}, mean {found.mean_accuracy:.1%}",
        10,
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.ax.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    bar.outline.set_visible(False)
    _write(run.folder, HEAT_MAP, figure, 150)


def draw_sheet(run: Run, data: Dataset) -> None:
    """Write `corruption-sheet.png` and `.svg`: the first sample that is right, under everything.

    Args:
        run: A finished run about corruptions.
        data: Its samples.
    """
    found, clean = run.summary.corruption, run.store.read_step(CLEAN_STEP)
    if found is None or data.shape[0] not in (1, 3):
        return
    kinds, severities = _axes(found)
    right = clean["sample_id"][clean["verdict"].isna()]
    sample = int(right.iloc[0] if len(right) else clean["sample_id"].iloc[0])
    place = data.ids.tolist().index(sample)
    x, ids, seed = data.x[place : place + 1], data.ids[place : place + 1], run.store.manifest.seed
    rows, columns = len(kinds), len(severities) + 1
    figure = Figure(figsize=(1.05 * columns + 1.4, 1.12 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    names, label = run.store.manifest.data.classes, int(data.y[place])
    entitle(
        figure, f"sample {sample} ({_short(names[label])}); red: another class is predicted", 10
    )
    for row, kind in enumerate(kinds):
        frame = run.store.read_step(kind)
        predicted = classes_under(frame[frame["sample_id"] == sample], len(severities))[0]
        axes[row, 0].set_ylabel(kind, rotation=0, ha="right", va="center", fontsize=9)
        for column in range(columns):
            axis, image = axes[row, column], x
            if column:
                severity = severities[column - 1]
                image = corrupt(x, _kind(kind), severity, ids, seed, data.lower, data.upper)
                seen = predicted[column - 1]
                if seen != label:
                    name = "no class" if np.isnan(seen) else _short(names[int(seen)])
                    axis.set_xlabel(name, fontsize=7, color="firebrick", parse_math=False)
                    axis.spines[:].set_color("firebrick")
                    axis.spines[:].set_linewidth(2)
            _show(axis, image[0], data)
            if row == 0:
                axis.set_title(str(severities[column - 1]) if column else "clean", fontsize=9)
    _write(run.folder, SHEET, figure, 90)


def _axes(found: CorruptionSummary) -> tuple[list[str], list[int]]:
    kinds = list(dict.fromkeys(cell.kind for cell in found.cells))
    return kinds, list(dict.fromkeys(cell.severity for cell in found.cells))


def _kind(name: str) -> KindName:
    return next(kind for kind in KIND if kind == name)


def _show(axis: matplotlib.axes.Axes, image: torch.Tensor, data: Dataset) -> None:
    """An image, black at the lowest end of the box and white at the highest."""
    low, high = float(data.lower.min()), float(data.upper.max())
    pixels = ((image.permute(1, 2, 0).numpy() - low) / ((high - low) or 1.0)).clip(0, 1)
    grey = pixels.shape[2] == 1
    axis.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])


def _write(folder: Path, name: str, figure: Figure, dpi: int) -> None:
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        # A fixed salt and no date: the same run gives the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": "robustbench-c"}):
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
        atomic_write_bytes(folder / f"{name}.{kind}", buffer.getvalue())


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"{name[:35]}…"

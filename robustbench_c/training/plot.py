"""The loss and accuracy curves of a training run, as `training.png` and `training.svg`."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from robustbench_c.files import write_atomically
from robustbench_c.training.log import EpochRow

_TRAIN, _CLEAN, _ROBUST, _VERIFIED, _LOSS = "#8c8c8c", "#0072b2", "#d55e00", "#009e73", "#333333"


def draw(folder: Path, rows: Sequence[EpochRow], title: str) -> None:
    """Draw the curves of all epochs so far.

    Args:
        folder: Where both files go.
        rows: The log, at least one row.
        title: Names what was trained; the last accuracies are added under it.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    loss, rates = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    loss.plot(epochs, [row.loss for row in rows], color=_LOSS, marker=".")
    loss.set_ylim(bottom=0)
    loss.set_title("Training loss (mean over the epoch)", loc="left", fontsize=10)
    loss.set_ylabel("loss")
    _curve(rates, epochs, [row.train_accuracy for row in rows], "training samples, clean", _TRAIN)
    clean = [row.validation_accuracy for row in rows]
    robust = [row.validation_robust_accuracy for row in rows]
    _curve(rates, epochs, clean, "held-out samples, clean", _CLEAN)
    verified = [row.validation_verified_accuracy for row in rows]
    _curve(rates, epochs, robust, "held-out samples, under attack", _ROBUST)
    _curve(rates, epochs, verified, "held-out samples, verified by intervals", _VERIFIED)
    rates.set_title("Accuracy at the epoch's end", loc="left", fontsize=10)
    rates.set_ylabel("accuracy")
    rates.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    rates.set_ylim(top=min(1.01, rates.get_ylim()[1]))
    # below both: inside, it would cover points
    figure.legend(frameon=False, fontsize=9, loc="outside lower right", ncols=2)
    for axes in (loss, rates):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    # on lines of its own where it is long: matplotlib would cut it off
    words = textwrap.fill(f"{title}: {_result(rows[-1])}", 95)
    figure.suptitle(words, fontsize=11, x=0.01, ha="left")
    for kind in ("png", "svg"):
        image = io.BytesIO()
        # A fixed salt and no date: the same curves give the same bytes.
        with rc_context({"svg.hashsalt": "robustbench-c"}):
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(image, format=kind, dpi=150, metadata=metadata)
        write_atomically(folder / f"training.{kind}", image.getvalue())


def _curve(
    axes: Axes, epochs: Sequence[int], values: Sequence[float | None], label: str, color: str
) -> None:
    if any(value is not None for value in values):
        drawn = [float("nan") if value is None else value for value in values]
        axes.plot(epochs, drawn, label=label, color=color, marker=".")


def _result(row: EpochRow) -> str:
    clean, robust = row.validation_accuracy, row.validation_robust_accuracy
    sparse = "" if row.sparsity is None else f", {row.sparsity:.1%} sparse"
    verified = row.validation_verified_accuracy
    if clean is None:
        return f"{row.train_accuracy:.1%} on training samples after epoch {row.epoch}{sparse}"
    attacked = "" if robust is None else f", {robust:.1%} under attack"
    proved = "" if verified is None else f", {verified:.1%} verified"
    found = f"{clean:.1%} clean{attacked}{proved} on held-out samples"
    return f"{found} after epoch {row.epoch}{sparse}"

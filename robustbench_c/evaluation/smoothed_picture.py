"""Certified accuracy of a smoothed classifier against the radius, as a picture."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from leaderboards.files import atomic_write_bytes
from robustbench_c.evaluation.smoothed_result import SmoothedResult

NAME = "certified-accuracy-vs-radius"
_CURVE, _CLEAN, _END = "#0072b2", "#333333", "#8c8c8c"


def draw_certified_accuracy(folder: Path, result: SmoothedResult, model: str, data: str) -> None:
    """Write `certified-accuracy-vs-radius.png` and `.svg`.

    The curve falls by one sample at each radius on record; the band holds its exact 95% interval
    at each single radius.

    Args:
        folder: Where to.
        result: What the run found.
        model: Name of the base classifier.
        data: Name of the data.
    """
    config, end = result.config, result.largest_radius
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    corners = np.unique([0.0, *result.radii, end])
    rates = [result.certified(float(corner)) for corner in corners]
    value, lower, upper = (
        [getattr(rate, name) for rate in rates] for name in ("value", "lower", "upper")
    )
    axes.fill_between(corners, lower, upper, step="post", color=_CURVE, alpha=0.15, linewidth=0)
    axes.step(corners, value, where="post", color=_CURVE, label="certified (band: exact 95%)")
    axes.axhline(
        result.right.value, color=_CLEAN, linestyle="--", linewidth=1, label="right without attack"
    )
    axes.axvline(end, color=_END, linestyle=":", linewidth=1.2)
    axes.annotate(
        f"{end:.2f}: the most that\n{config.n:,} draws can certify",
        (end, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color="#595959",
    )
    axes.set_xlim(0, end * 1.03)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("L2 radius of the perturbation, in units of the input")
    axes.set_ylabel(f"share of {result.samples:,} samples")
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    settings = f"Gaussian noise {config.sigma:g}, {config.n0:,} + {config.n:,} draws"
    axes.set_title(
        f"Smoothed classifier of {_short(model)} on {_short(data)}\n"
        f"{settings}, each sample with probability 1 - {config.alpha:g}",
        loc="left",
        fontsize=10,
        parse_math=False,
    )
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        # A fixed salt and no date: the same curve gives the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": "robustbench-c"}):
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
        atomic_write_bytes(folder / f"{NAME}.{kind}", buffer.getvalue())


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"{name[:35]}…"

"""Certified accuracy against eps: for each eps the share of samples whose radius reaches it."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from leaderboards.files import atomic_write_bytes
from leaderboards.rates import Rate
from leaderboards.store import RunStore
from leaderboards.summary import Summary

NAME = "certified-radius"

_PROVED, _EMPIRICAL = "#1b6ca8", "#b5402c"


def plot_radii(store: RunStore, summary: Summary) -> None:
    """Write `certified-radius.png` and `.svg` from a complete record, unless they are there."""
    steps = [step for step in store.steps if store.kind(step) == "certificate"]
    radii = pd.concat([store.read_step(step)["radius"].dropna() for step in steps])
    if radii.empty or not summary.complete or (store.folder / f"{NAME}.svg").exists():
        return
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw(axes, np.sort(radii.to_numpy(dtype=np.float64)), summary, store)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "robustbench-c", "svg.fonttype": "none"}):
            figure.savefig(
                buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
            )
        atomic_write_bytes(store.folder / f"{NAME}.{kind}", buffer.getvalue())


def _draw(axes: Axes, radii: np.ndarray, summary: Summary, store: RunStore) -> None:
    manifest, n = store.manifest, summary.samples
    threat = manifest.protocol.threat
    steps = {step.name: step.parameters for step in manifest.protocol.steps}
    method = next(p["method"] for p in steps.values() if p.get("tolerance") is not None)
    # at a radius itself the sample still counts
    at = np.concatenate([[0.0], radii])
    share = np.concatenate([[len(radii)], np.arange(len(radii), 0, -1)]) / n
    axes.step(at, share, where="pre", color=_PROVED, lw=2, label=f"certified ({method})", zorder=3)
    axes.plot([radii[-1]] * 2, [1 / n, 0], color=_PROVED, lw=2)
    axes.fill_between(at, share, step="pre", color=_PROVED, alpha=0.12, lw=0)
    axes.axvline(threat.eps, color="0.45", lw=1, ls=(0, (4, 3)))
    _mark(axes, threat.eps, summary.certified_accuracy, _PROVED, "certified by all steps", "v")
    if any(step.kind == "attack" for step in manifest.protocol.steps):
        _mark(axes, threat.eps, summary.robust_accuracy, _EMPIRICAL, "not broken by any step", "^")
    if summary.clean_accuracy is not None:
        clean = summary.clean_accuracy.value
        axes.axhline(clean, color="0.7", lw=1)
        axes.annotate(
            f"clean {clean:.1%}", (1, clean), (-4, 3), va="bottom", ha="right", fontsize=9,
            xycoords=("axes fraction", "data"), textcoords="offset points", color="0.35",
        )  # fmt: skip
    right = max(1.35 * threat.eps, 1.05 * float(radii[-1]))
    axes.set(xlim=(0, right), ylim=(0, 1.03))
    unit = "" if threat.eps_unit == "input" else ", share of each feature's range"
    axes.set_xlabel(f"eps ({threat.norm}{unit})")
    axes.set_ylabel(f"share of {n} samples")
    axes.set_title(f"{manifest.model.name} on {manifest.data.name}", fontsize=11, parse_math=False)
    axes.annotate(
        f"eps {threat.eps:g}", (threat.eps, 0), (4, 4), xycoords=("data", "axes fraction"),
        textcoords="offset points", color="0.35", fontsize=9,
    )  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="0.92", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mark(axes: Axes, eps: float, rate: Rate | None, colour: str, label: str, sign: str) -> None:
    """A rate with its interval, at eps."""
    if rate is None:
        return
    ends = [[rate.value - rate.lower], [rate.upper - rate.value]]
    axes.errorbar(
        [eps], [rate.value], yerr=ends, fmt=sign, color=colour, ms=7, capsize=3, lw=1.2,
        label=f"{label}: {rate.value:.1%}", zorder=4,
    )  # fmt: skip

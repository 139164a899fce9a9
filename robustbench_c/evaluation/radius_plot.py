"""Accuracy against eps: for each eps the share of samples that is certified, and not broken."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from leaderboards.distances import CURVE, accuracy_curve, curve_csv
from leaderboards.files import atomic_write_bytes
from leaderboards.manifest import StepInfo
from leaderboards.rates import Rate
from leaderboards.store import RunStore
from leaderboards.summary import Summary

NAME = "certified-radius"
"""Of the picture where certified radii alone were looked for."""
BOTH = Path(CURVE).stem
"""Of the picture where nearest adversarial examples were."""

_PROVED, _EMPIRICAL, _OPEN = "#1b6ca8", "#b5402c", "#f0ebdf"


def plot_radii(store: RunStore, summary: Summary) -> None:
    """Draw what a complete record says of all eps, as .png and .svg, unless it is there.

    That is `certified-radius`, or `accuracy-curve` where nearest adversarial examples were looked
    for, with its numbers beside it (.csv).
    """
    minimal = any(step.minimal for step in store.manifest.protocol.steps)
    if not summary.complete or (summary.distance if minimal else summary.radius) is None:
        return
    frames, name = store.read_steps(), BOTH if minimal else NAME
    if minimal:
        atomic_write_bytes(store.folder / CURVE, curve_csv(store.manifest, frames))
    if (store.folder / f"{name}.svg").exists():
        return
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    curve = accuracy_curve(store.manifest, frames)
    _draw(axes, curve, summary, store, minimal)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "robustbench-c", "svg.fonttype": "none"}):
            figure.savefig(
                buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
            )
        atomic_write_bytes(store.folder / f"{name}.{kind}", buffer.getvalue())


def _draw(
    axes: Axes, curve: pd.DataFrame, summary: Summary, store: RunStore, minimal: bool
) -> None:
    manifest, n = store.manifest, summary.samples
    threat, steps = manifest.protocol.threat, manifest.protocol.steps
    right = _right_end(summary, threat.eps)
    # both curves at every point and just before the next: one falls after a point, one at it
    at = np.append(curve["eps"].to_numpy(), max(right, curve["eps"].iloc[-1]))
    empirical = np.repeat(curve["empirical"].to_numpy() / n, 2)
    ends = np.repeat(at, 2)[1:-1]
    proves, certified = summary.certified_accuracy is not None, np.zeros_like(empirical)
    if proves:
        counts = curve["certified"].to_numpy(dtype=np.float64) / n
        certified = np.repeat(np.append(counts[1:], 0.0), 2)
    if minimal:
        said = f"not broken ({_told(steps, 'attack')})"
        _line(axes, ends, empirical, _EMPIRICAL, said)
        axes.fill_between(ends, certified, empirical, color=_OPEN, lw=0, label="open")
    if proves:
        said = f"certified ({_told(steps, 'certificate')})"
        _line(axes, ends, certified, _PROVED, said)
        axes.fill_between(ends, certified, color=_PROVED, alpha=0.12, lw=0)
    axes.axvline(threat.eps, color="0.45", lw=1, ls=(0, (4, 3)))
    aside = 0.004 * right  # so that one interval does not hide the other
    if any(step.kind == "attack" for step in steps):
        at_eps = (threat.eps + aside, summary.robust_accuracy)
        _mark(axes, *at_eps, _EMPIRICAL, "not broken by any step", "^")
    if proves:
        at_eps = (threat.eps - aside, summary.certified_accuracy)
        _mark(axes, *at_eps, _PROVED, "certified by all steps", "v")
    if summary.clean_accuracy is not None:
        clean = summary.clean_accuracy.value
        axes.axhline(clean, color="0.7", lw=1)
        axes.annotate(
            f"clean {clean:.1%}", (1, clean), (-4, 3), va="bottom", ha="right", fontsize=9,
            xycoords=("axes fraction", "data"), textcoords="offset points", color="0.35",
        )  # fmt: skip
    axes.set(xlim=(0, right), ylim=(0, 1.03))
    unit = "" if threat.eps_unit == "input" else ", share of each feature's range"
    axes.set_xlabel(f"eps ({threat.norm}{unit})")
    axes.set_ylabel(f"share of {n} samples")
    axes.set_title(f"{manifest.model.name} on {manifest.data.name}", fontsize=11, parse_math=False)
    axes.annotate(
        f"eps {threat.eps:g}", (threat.eps, 1), (5, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", color="0.35", fontsize=9, va="top",
    )  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="0.92", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _right_end(summary: Summary, eps: float) -> float:
    """Where the picture ends: past eps, all radii, and all but the farthest examples."""
    ends = [1.35 * eps]
    if summary.radius is not None:
        ends.append(1.05 * summary.radius.maximum)
    if (found := summary.distance) is not None:
        ends.append(1.05 * min(found.maximum, 1.6 * found.q90))
    return max(ends)


def _told(steps: tuple[StepInfo, ...], kind: str) -> str:
    """How a curve came about: the attacks, or what measured the radii (else: what proved eps)."""
    mine = [step for step in steps if step.kind == kind]
    if kind == "attack":
        return ", ".join(str(step.parameters.get("attack", step.name)) for step in mine)
    measured = [step for step in mine if step.parameters.get("tolerance") is not None]
    return ", ".join(str(step.parameters["method"]) for step in measured or mine)


def _line(axes: Axes, at: np.ndarray, share: np.ndarray, colour: str, label: str) -> None:
    """A curve up to where it meets 0."""
    seen = at <= at[share > 0].max(initial=0.0)
    axes.plot(at[seen], share[seen], color=colour, lw=2, label=label, zorder=3)


def _mark(axes: Axes, eps: float, rate: Rate | None, colour: str, label: str, sign: str) -> None:
    """A rate with its interval, at eps."""
    if rate is None:
        return
    ends = [[rate.value - rate.lower], [rate.upper - rate.value]]
    axes.errorbar(
        [eps], [rate.value], yerr=ends, fmt=sign, color=colour, ms=7, capsize=3, lw=1.2,
        label=f"{label}: {rate.value:.1%}", zorder=4,
    )  # fmt: skip

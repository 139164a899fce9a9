"""How many explanations stay within a distance: what is proved, what is bent, what is open."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from leaderboards.explained import explained_values
from leaderboards.files import atomic_write_bytes
from leaderboards.manifest import ExplanationInfo
from robustbench_c.evaluation.explained_samples import EpsPoint
from robustbench_c.evaluation.run import Run

CURVE = "explanation-curve"
EPS_CURVE = "explanation-eps-curve"
_PROVED, _BENT, _OPEN = "#1b6ca8", "#b5402c", "#d9d4c8"
_NAMES = {"cosine": "1 - cosine similarity", "top-k": "share of the top k that is lost"}


def save(folder: Path, name: str, figure: Figure) -> Path:
    """Write a figure as .png and .svg; returns the former's path."""
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "robustbench-c", "svg.fonttype": "none"}):
            figure.savefig(
                buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None
            )
        atomic_write_bytes(folder / f"{name}.{kind}", buffer.getvalue())
    return folder / f"{name}.png"


def gamma_of(info: ExplanationInfo) -> str:
    """What a title says of the weights: nothing where they stay."""
    if not info.gamma:
        return ""
    return f", gamma {info.gamma:g}" + ("" if info.gamma_relative else " absolute")


def _unit(run: Run) -> str:
    """What the distance is called on an axis."""
    info = run.store.manifest.protocol.explanation
    if info is None:
        return "distance"
    measure = info.criterion.measure
    relative = ", in parts of its own" if info.criterion.relative else ""
    return _NAMES.get(measure, f"{measure} distance of the explanation{relative}")


def draw_curve(run: Run) -> None:
    """Write `explanation-curve.png` and `.svg` of a complete record, unless they are there."""
    store, info = run.store, run.store.manifest.protocol.explanation
    if info is None or not run.summary.complete or (run.folder / f"{CURVE}.svg").exists():
        return
    frames = store.read_steps()
    values = explained_values(frames, run.verdicts.index)
    n = len(values)
    found, proved = (
        np.sort(values[name].dropna().to_numpy(np.float64)) for name in ("attack", "certificate")
    )
    points = np.concatenate([found, proved, [info.criterion.threshold]])
    positive = points[points > 0]
    if not positive.size:
        return
    top = float(positive.max()) * 1.1
    logarithmic = np.quantile(positive, 0.9) > 30 * np.quantile(positive, 0.1)
    start = max(float(np.quantile(positive, 0.02)), top * 1e-6) / 2 if logarithmic else 0.0
    at = np.unique(np.concatenate([[start], points[(points >= start) & (points <= top)], [top]]))
    certified = np.searchsorted(proved, at, side="right") / n
    stays = 1 - (len(found) - np.searchsorted(found, at, side="right")) / n
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.fill_between(at, certified, color=_PROVED, alpha=0.16, step="post", lw=0)
    axes.fill_between(at, certified, stays, color=_OPEN, label="open", step="post", lw=0)
    axes.fill_between(at, stays, 1, color=_BENT, alpha=0.16, step="post", lw=0)
    if len(proved):
        axes.step(at, certified, where="post", color=_PROVED, lw=2, label="certified: stays within")
    if len(found):
        axes.step(
            at, stays, where="post", color=_BENT, lw=2, label="not bent further by the attack"
        )
    threshold = info.criterion.threshold
    if start < threshold:
        axes.axvline(threshold, color="0.35", lw=1, ls=(0, (4, 3)))
        axes.annotate(
            f" threshold {threshold:.3g}", (threshold, 1.0), (0, 3), fontsize=9, color="0.35",
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
        )  # fmt: skip
    if logarithmic:
        axes.set_xscale("log")
    axes.set(xlim=(start, top), ylim=(0, 1))
    axes.set_xlabel(_unit(run))
    axes.set_ylabel(f"share of {n} samples")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    manifest = run.store.manifest
    threat = manifest.protocol.threat
    axes.set_title(
        f"{manifest.model.name} on {manifest.data.name}: {info.kind}, {threat.norm} eps "
        f"{threat.eps:g}{gamma_of(info)}", fontsize=10, parse_math=False, pad=16,
    )  # fmt: skip
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    save(run.folder, CURVE, figure)


def draw_eps_curve(run: Run, points: list[EpsPoint]) -> Path:
    """Write `explanation-eps-curve.png` and `.svg`; returns the former's path."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    eps = [point.eps for point in points]
    attack = [np.nan if point.attack is None else point.attack for point in points]
    best = [min(p.certificates.values(), default=np.nan) for p in points]
    axes.fill_between(eps, attack, best, color=_OPEN, lw=0, label="open")
    axes.plot(eps, attack, "o-", color=_BENT, label="attack (a lower bound)")
    for method, style in zip(points[0].certificates, ("v-", "s--", "^:"), strict=False):
        shown = [point.certificates[method] for point in points]
        axes.plot(eps, shown, style, color=_PROVED, label=f"{method} (an upper bound)")
    axes.set_xscale("log")
    known = [v for v in [*attack, *best] if np.isfinite(v) and v > 0]
    if known and max(known) > 30 * min(known):
        axes.set_yscale("log")
    manifest = run.store.manifest
    threat, info = manifest.protocol.threat, manifest.protocol.explanation
    unit = "" if threat.eps_unit == "input" else ", share of each feature's range"
    axes.set_xlabel(f"eps ({threat.norm}{unit})")
    axes.set_ylabel(f"{_unit(run)},\nmedian of {points[0].samples} samples")
    kind = "explanation" if info is None else f"{info.kind}{gamma_of(info)}"
    axes.set_title(
        f"{manifest.model.name} on {manifest.data.name}: {kind}", fontsize=10, parse_math=False
    )
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    return save(run.folder, EPS_CURVE, figure)

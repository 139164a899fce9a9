"""Explanations as a person would look at them: the clean one, its box, and the worst found."""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from leaderboards.files import atomic_write_bytes
from robustbench_c.data import Dataset
from robustbench_c.evaluation.explained_curve import gamma_of, save
from robustbench_c.evaluation.explained_samples import Looked, look_at
from robustbench_c.evaluation.run import Run
from robustbench_c.evaluation.titles import entitle
from robustbench_c.zoo.loading import LoadedModel

NAME = "explanations"
KEPT = f"{NAME}.safetensors"
"""The explanations that the pictures show; `leaderboards.site.heat_maps` reads it."""
_IMAGES = 6
_ROWS_OF_DATA = 3
_FEATURES = 10
_PROTECTED = "#b5402c"
_VERDICTS = {"broken": "#b5402c", "certified": "#1b6ca8", "undecided": "0.35"}


def draw_samples(run: Run, model: LoadedModel, data: Dataset) -> None:
    """Write `explanations.png` and `.svg` of a few samples, unless they are there.

    What they show is kept as well, in `KEPT`, for a site or a report to draw it again.
    """
    image = data.x.dim() == 4 and data.shape[0] in (1, 3)
    flat = data.x.dim() == 2
    if not (image or flat) or all((run.folder / name).exists() for name in (f"{NAME}.svg", KEPT)):
        return
    if not run.verdicts["verdict"].isin(list(_VERDICTS)).any():  # errors have nothing to show
        return
    looked = look_at(run, model, data, _IMAGES if image else _ROWS_OF_DATA)
    atomic_write_bytes(run.folder / KEPT, safetensors.torch.save(_tensors(looked)))
    figure = _heat_maps(run, looked, data) if image else _bars(run, looked, data)
    save(run.folder, NAME, figure)


def _tensors(looked: Looked) -> dict[str, Tensor]:
    """The explanations of some samples, by the names that `docs/records.md` lists."""
    box, bent = looked.box, looked.bent
    tensors = {"ids": torch.from_numpy(looked.ids), "clean": looked.clean}
    tensors |= {} if bent is None else {"bent": bent}
    tensors |= {} if box is None else {"lower": box.lower, "upper": box.upper}
    return {name: value.contiguous() for name, value in tensors.items()}


def _title(run: Run) -> str:
    manifest = run.store.manifest
    explanation, threat = manifest.protocol.explanation, manifest.protocol.threat
    if explanation is None:
        return ""
    return (
        f"{manifest.model.name} on {manifest.data.name}: {explanation.kind} of the "
        f"{explanation.of}, {threat.norm} eps {threat.eps:g}{gamma_of(explanation)}"
    )


def _heat_maps(run: Run, looked: Looked, data: Dataset) -> Figure:
    """One column for each sample; blue and red share a scale within it."""
    n = len(looked.ids)
    rows: list[tuple[str, Tensor, str]] = [
        ("input", looked.x, "input"),
        ("explanation", looked.clean.mean(1, keepdim=True), "signed"),
    ]
    if looked.bent is not None:
        rows.append(("worst found", looked.bent.mean(1, keepdim=True), "signed"))
    if looked.box is not None:
        width = (looked.box.upper - looked.box.lower).mean(1, keepdim=True)
        rows.append(("certified\nbox width", width, "width"))
    figure = Figure(figsize=(1.95 * n + 1.3, 2.0 * len(rows) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    entitle(figure, _title(run), 11)
    axes = figure.subplots(len(rows), n, squeeze=False)
    low, high = float(data.lower.min()), float(data.upper.max())
    shown, most = None, 0.0
    signed = torch.stack([v.abs().flatten(1).amax(1) for _, v, kind in rows if kind == "signed"])
    scales = signed.amax(0).clamp_min(1e-30).tolist()
    if looked.box is not None:
        widest = rows[-1][1].flatten(1).amax(1) / torch.tensor(scales)
        most = min(float(widest.max()), 2.0)
    for i in range(n):
        scale = scales[i]
        for row, (name, values, kind) in enumerate(rows):
            axis, picture = axes[row, i], values[i].permute(1, 2, 0).numpy()
            axis.set_xticks([])
            axis.set_yticks([])
            if i == 0:
                axis.set_ylabel(name, fontsize=10)
            if kind == "input":
                picture = ((picture - low) / ((high - low) or 1.0)).clip(0, 1)
                axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
                told = data.classes[looked.explained[i]]
                axis.set_title(f"#{looked.ids[i]}, seen as {told}", fontsize=8, parse_math=False)
            elif kind == "signed":
                axis.imshow(picture.squeeze(), cmap="RdBu_r", vmin=-scale, vmax=scale)
            else:
                # in parts of the explanation's largest entry, so that samples compare
                shown = axis.imshow(picture.squeeze() / scale, cmap="magma", vmin=0, vmax=most)
                axis.set_xlabel(f"largest {picture.max() / scale:.2g}", fontsize=8)
        _say(axes[-1, i], looked, i)
    if shown is not None:
        figure.colorbar(shown, ax=axes[-1, :], shrink=0.85, label="parts of largest entry")
    return figure


def _say(axis: Axes, looked: Looked, i: int) -> None:
    verdict = {"broken": "bent"}.get(looked.verdict[i], looked.verdict[i])
    colour = _VERDICTS.get(looked.verdict[i], "black")
    before = axis.get_xlabel()
    axis.set_xlabel(f"{before}\n{verdict}".strip(), fontsize=8, color=colour)


def _bars(run: Run, looked: Looked, data: Dataset) -> Figure:
    """The largest features of each sample with what they can become; protected ones in red."""
    n = len(looked.ids)
    names = list(data.feature_names) or [f"feature {i}" for i in range(data.shape[0])]
    protected = set(data.protected_columns)
    count = min(_FEATURES, len(names))
    figure = Figure(figsize=(4.6 * n, 0.34 * count + 1.7), layout="constrained")
    FigureCanvasAgg(figure)
    entitle(figure, _title(run), 11)
    axes = figure.subplots(1, n, squeeze=False)
    for i in range(n):
        axis, v = axes[0, i], looked.clean[i]
        first = _shown(v, protected, count)
        at = np.arange(len(first))
        values = v[first].numpy()
        colours = [_PROTECTED if place in protected else "#7a9cc0" for place in first]
        axis.barh(at, values, color=colours, height=0.62, label="clean explanation")
        if looked.box is not None:
            low, high = (end[i][first].numpy() for end in (looked.box.lower, looked.box.upper))
            ends = np.stack([values - low, high - values]).clip(0)
            axis.errorbar(
                values, at, xerr=ends, fmt="none", color="black", capsize=2.5, lw=1.1,
                label="certified: cannot leave",
            )  # fmt: skip
        if looked.bent is not None:
            axis.plot(
                looked.bent[i][first].numpy(), at, "D", color="#e0a030", ms=4.5, mec="black",
                mew=0.5, label="worst found",
            )  # fmt: skip
        axis.axvline(0, color="0.4", lw=0.8)
        axis.set_yticks(at, [names[place][:26] for place in first], fontsize=8, parse_math=False)
        for tick, place in zip(axis.get_yticklabels(), first, strict=True):
            tick.set_color(_PROTECTED if place in protected else "black")
        axis.invert_yaxis()
        told = data.classes[looked.explained[i]]
        verdict = {"broken": "bent"}.get(looked.verdict[i], looked.verdict[i])
        axis.set_title(f"#{looked.ids[i]}, seen as {told}: {verdict}", fontsize=9, parse_math=False)
        axis.tick_params(axis="x", labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if protected:
        handles, labels = [*handles, Patch(color=_PROTECTED)], [*labels, "protected"]
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    return figure


def _shown(v: Tensor, protected: set[int], count: int) -> list[int]:
    """The places of the largest entries; of protected ones the two largest at least."""
    order: list[int] = torch.argsort(v.abs(), descending=True, stable=True).tolist()
    kept = [place for place in order if place in protected][:2]
    others = [place for place in order if place not in kept][: count - len(kept)]
    return sorted([*kept, *others], key=order.index)

"""How far away the nearest adversarial example is, and how far explanations can be bent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from leaderboards.distances import Quantiles, accuracy_curve
from leaderboards.errors import one_line
from leaderboards.explained import Spread
from leaderboards.rates import Rate
from leaderboards.report.blocks import Alarm, Block, Curve, Figures, Table, Text
from leaderboards.report.subject import Subject
from leaderboards.report.summarypage import criterion
from leaderboards.report.words import NONE, interval, number, share
from leaderboards.site.heat_maps import heat_maps

_QUANTILES = ("minimum", "q10", "q25", "median", "q75", "q90", "maximum")
_PARTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_METRICS = {
    "deviation_linf": "no entry differs more from the clean one",
    "deviation_mean": "mean difference of the entries, at most",
    "deviation_l1": "L1 norm of the difference, at most",
    "deviation_l2": "L2 norm of the difference, at most",
    "width_max": "largest width of the box",
    "width_mean": "mean width of the box",
    "cosine": "cosine similarity with the clean explanation, at least",
    "top_k": "share of the k largest entries that surely stay among them",
    "sup_norm": "no entry is larger in absolute value",
    "lipschitz": "L1 norm of the explanation, at most",
    "signs": "share of entries whose sign cannot change",
    "local_lipschitz_lower": "largest local Lipschitz constant of a logit: steepest gradient found",
    "local_lipschitz_upper": "the same: proved",
}


def _maps(subject: Subject) -> Iterator[Block]:
    """Heat maps of the samples that the run kept some of."""
    maps = heat_maps(subject.entry)
    if maps.problem:
        yield Alarm(maps.problem)
    if maps.shown:
        yield Text("Explanations of the first samples, clean and worst found on one scale:")
        yield Figures(
            tuple(
                (
                    f"sample {told['sample']}",
                    tuple((title, maps.files[name]) for title, name in told["files"]),
                )
                for told in maps.shown
            )
        )
        yield Text("Blue is negative, red positive; in the box width darker is wider.")


def has_distances(subject: Subject) -> bool:
    """Whether the run looked for radii or nearest examples."""
    summary = subject.summary
    return summary.radius is not None or summary.distance is not None


def distances(subject: Subject) -> Iterator[Block]:
    """Yield quantiles of radii and distances, and the curve."""
    summary, threat = subject.summary, subject.manifest.protocol.threat
    found: list[tuple[str, Quantiles]] = []
    if summary.radius is not None:
        found.append(("certified radius", summary.radius))
    if summary.distance is not None:
        found.append(("nearest example found", summary.distance))
    norm = "L2" if subject.smoothed else threat.norm
    unit = "input units" if threat.eps_unit == "input" else "parts of each feature's range"
    yield Text(
        f"Distances in {norm}, in {unit}, of the samples that are right. No adversarial example is "
        "nearer than the certified radius; the nearest that was found is an upper bound."
    )
    rows = tuple(
        (name, *(number(getattr(each, q)) for q in _QUANTILES), f"{each.samples:,}")
        for name, each in found
    )
    yield Table(("", "smallest", "10%", "25%", "median", "75%", "90%", "largest", "samples"), rows)
    near = summary.distance
    if near is not None and near.within_1_percent is not None:
        yield Text(
            f"For {share(near.within_1_percent)} (95% interval {interval(near.within_1_percent)}) "
            f"of the {near.searched:,} samples searched, what was found is at most 1% beyond what "
            f"was proved; for {share(near.within_10_percent)} at most 10%."
        )
    if not summary.complete or subject.smoothed:
        return
    curve = accuracy_curve(subject.manifest, subject.frames)
    yield Curve(curve, threat)
    yield _at(curve, threat.eps)


def _at(curve: pd.DataFrame, eps: float) -> Table:
    """The curve at some eps around that of the threat model."""
    ends = curve["eps"].to_numpy(np.float64)
    n = int(curve["samples"].iloc[0])
    base = eps or float(ends[-1])
    rows = []
    for part in _PARTS:
        at = part * base
        found = curve["empirical"].iloc[int(np.searchsorted(ends, at, "right")) - 1]
        place = int(np.searchsorted(ends, at, "left"))
        proved = curve["certified"].iloc[place] if place < len(ends) else 0
        none = bool(curve["certified"].isna().any())
        cells = (Rate.of(int(k), n) for k in (0 if none else proved, found))
        low, high = cells
        below = (NONE, NONE) if none else (share(low), interval(low))
        rows.append((f"{at:.4g}", *below, share(high), interval(high)))
    header = ("eps", "certified", "95% interval", "empirical robust", "95% interval")
    return Table(header, tuple(rows), note="Certified <= true <= empirical robust at every eps.")


def explanations(subject: Subject) -> Iterator[Block]:
    """Yield what boxes of explanations certify."""
    found, info = subject.summary.explanation, subject.manifest.protocol.explanation
    if found is None or info is None:
        return
    yield Text(
        f"Distance between explanations: {criterion(subject)}. For each sample the largest that "
        "the attack found is a lower bound of the truth, the smallest that was proved an upper "
        "one."
    )
    spreads: tuple[tuple[str, Spread | None], ...] = (
        ("attack found", found.attack),
        ("proof allows", found.certificate),
        ("proof / attack", found.ratio),
    )
    yield Table(
        ("distance", "10%", "25%", "median", "75%", "90%", "samples"),
        tuple(
            (name, *(number(getattr(each, q)) for q in ("q10", "q25", "median", "q75", "q90")),
             f"{each.samples:,}")
            for name, each in spreads
            if each is not None
        ),
    )  # fmt: skip
    rows = tuple((_METRICS[k], number(v)) for k, v in found.metrics.items() if k in _METRICS)
    if rows:
        yield Text("What the boxes that hold every explanation say, the best of each sample:")
        yield Table(("", "median"), rows)
    yield from _maps(subject)
    if found.monotone:
        yield Text("Share of samples of which the explained score is proved to be monotone:")
        yield Table(
            ("feature", "never falls", "95% interval", "never rises", "95% interval"),
            tuple(
                (one_line(m.name, 60), share(m.increasing), interval(m.increasing),
                 share(m.decreasing), interval(m.decreasing))
                for m in found.monotone
            ),
        )  # fmt: skip

"""The page of a run: what it found, by what, of which samples, and how to do it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from leaderboards.boards import threat_words
from leaderboards.columns import METRICS
from leaderboards.distances import accuracy_curve
from leaderboards.entries import Entry
from leaderboards.errors import RecordError, one_line
from leaderboards.rates import Rate
from leaderboards.reproduction import reproduction
from leaderboards.site.bars import PARTS, sandwich
from leaderboards.site.curve import curve_plot
from leaderboards.site.folder import put
from leaderboards.site.heat_maps import heat_maps
from leaderboards.site.pictures import (
    MOST,
    changed_features,
    is_picture,
    pictures_of,
    stored_examples,
)
from leaderboards.site.provenance import parameters, provenance
from leaderboards.site.render import render
from leaderboards.site.samples import MOST as MOST_SAMPLES
from leaderboards.site.samples import SampleColumn, sample_columns, samples_js
from leaderboards.site.words import sandwich_words
from leaderboards.store import RunStore

_RATES = {"clean": "Clean", "robust": "Empirical robust", "certified": "Certified"}
_EXPLAINED_RATES = _RATES | {"robust": "Not bent", "certified": "Certified stable"}


@dataclass(frozen=True)
class Placing:
    """Where a run stands.

    Attributes:
        name: Folder of its page: a slug.
        board: Title of its board.
        anchor: Place of the board on the main page.
        ranks: By rate, best and worst rank, and how many models have one.
        not_ranked: Why it has no rank at all; None where nothing is against one.
    """

    name: str
    board: str
    anchor: str
    ranks: dict[str, tuple[int, int, int]]
    not_ranked: str | None


def write_page(entry: Entry, placing: Placing, runs: Path) -> Markup | None:
    """Write the folder of a run's page: `index.html`, `samples.js` and pictures.

    Args:
        entry: The run.
        placing: Where it stands.
        runs: Folder of all pages.

    Returns:
        Its plot of accuracy against eps, if it has one.

    Raises:
        RecordError: The run changed since it was read, or the page cannot be written.
    """
    folder = runs / placing.name
    store = RunStore.open(entry.folder).snapshot()
    columns = entry.kept or sample_columns(entry, store)
    pictures, problem = _examples(entry, store, columns)
    heat, curve = heat_maps(entry), _curve(entry, store, "radius" in columns)
    for name, data in (pictures.files | heat.files).items():
        put(folder / name, data)
    pictured = {e["sample"]: f"sample-{e['sample']}" for e in pictures.shown}
    ids = entry.settled.index.tolist()
    put(folder / "samples.js", samples_js(ids, columns, pictured))
    put(
        folder / "index.html",
        render(
            "run.html",
            entry=entry,
            manifest=entry.manifest,
            summary=entry.summary,
            placing=placing,
            threat=threat_words(entry.manifest.protocol),
            sandwich=_sandwich(entry),
            metrics=METRICS,
            counts={part[0]: getattr(entry.summary.counts, part) for part in PARTS},
            words=sandwich_words(entry),
            rates=list(_rates(entry, placing)),
            classes=class_table(entry, columns["label"]),
            curve=curve,
            corruptions=_corruptions(entry),
            examples=pictures.shown,
            broken=entry.summary.counts.broken,
            most_pictures=MOST,
            problems=[one_line(p) for p in (problem, heat.problem) if p],
            heat=heat.shown,
            provenance=provenance(entry),
            reproduction=reproduction(entry.manifest),
            steps=list(_steps(entry)),
            most_samples=MOST_SAMPLES,
        ),
    )
    return curve


@dataclass(frozen=True)
class _Pictures:
    shown: list[dict[str, Any]]
    files: dict[str, bytes]


def _examples(
    entry: Entry, store: RunStore, columns: dict[str, SampleColumn]
) -> tuple[_Pictures, str | None]:
    """Examples for the page; what is wrong with them is said there, and nothing is shown."""
    data, shown, files = entry.manifest.data, [], dict[str, bytes]()
    try:
        examples = stored_examples(entry, store)
    except RecordError as error:
        problem = str(error).replace(f"{entry.folder}", entry.manifest.run_id)
        return _Pictures([], {}), f"The stored adversarial examples are not shown: {problem}"
    places = {sample: place for place, sample in enumerate(entry.settled.index.tolist())}
    for example in examples:
        told: dict[str, Any] = {"sample": example.sample, "step": example.step}
        for key in ("label", "seen_as"):
            known = columns.get(key)
            told[key] = None if known is None else known.word(places[example.sample])
        if is_picture(data.shape):
            told["files"] = []
            for kind, png in pictures_of(example, data).items():
                name = f"{example.sample}-{kind}.png"
                files[name] = png
                told["files"].append((kind, name))
        else:
            told["features"] = changed_features(example)
        shown.append(told)
    return _Pictures(shown, files), None


def _sandwich(entry: Entry) -> Markup:
    """The picture of the verdicts, with the rates that bound the truth."""
    summary, found = entry.summary, entry.summary.explanation
    if found is not None:
        kept = {"broken": "bent"}
        return sandwich(summary.counts, [("certified stable", found.certified)], kept)
    marks = [
        ("clean", summary.clean_accuracy),
        ("empirical", summary.robust_accuracy),
        ("certified", summary.certified_accuracy),
    ]
    return sandwich(summary.counts, marks, {})


def _rates(entry: Entry, placing: Placing) -> Iterator[dict[str, Any]]:
    """Results with their intervals and ranks."""
    explained = entry.manifest.protocol.explanation is not None
    titles = _EXPLAINED_RATES if explained else _RATES
    for name, title in titles.items():
        if name not in entry.right:
            continue
        right = entry.right[name]
        if name == "clean":
            rate = entry.summary.clean_accuracy
        else:
            rate = Rate.of(int(right.sum()), right.size)
        if rate is not None:
            yield {"title": title, "rate": rate, "rank": placing.ranks.get(name)}


def _steps(entry: Entry) -> Iterator[dict[str, Any]]:
    """The steps of the protocol with their settings, and the hash of what they found."""
    hashes = {step.name: step.content_sha256 for step in entry.summary.steps}
    for step in entry.manifest.protocol.steps:
        yield {
            "name": step.name,
            "kind": step.kind,
            "version": step.version,
            "parameters": parameters(step.parameters) or "no settings",
            "hash": hashes[step.name],
        }


def class_table(entry: Entry, label: SampleColumn) -> list[dict[str, Any]]:
    """Return rates by true class, of classes that have samples."""
    known, names = label.values >= 0, label.words or []
    total = np.bincount(label.values[known], minlength=len(names))
    hits = {
        rate: np.bincount(label.values[known & right], minlength=len(names))
        for rate, right in entry.right.items()
    }
    return [
        {"name": name, "samples": int(total[i])}
        | {rate: Rate.of(int(found[i]), int(total[i])) for rate, found in hits.items()}
        for i, name in enumerate(names)
    ]


def _corruptions(entry: Entry) -> dict[str, dict[int, Rate]]:
    """Accuracy by kind of corruption and severity; nothing where the run is not about them."""
    found: dict[str, dict[int, Rate]] = {}
    cells = () if entry.summary.corruption is None else entry.summary.corruption.cells
    for cell in cells:
        found.setdefault(cell.kind, {})[cell.severity] = cell.accuracy
    return found


def _curve(entry: Entry, store: RunStore, radii: bool) -> Markup | None:
    """The plot of accuracy against eps, of runs that looked for distances; else None."""
    steps = entry.manifest.protocol.steps
    if not entry.summary.complete or not (radii or any(step.minimal for step in steps)):
        return None
    curve = accuracy_curve(entry.manifest, store.read_steps())
    return curve_plot(curve, entry.manifest.protocol.threat)

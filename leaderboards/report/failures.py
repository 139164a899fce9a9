"""Samples that were broken, with pictures where the run kept its examples."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from leaderboards.errors import RecordError, one_line
from leaderboards.report.blocks import Alarm, Block, Figures, Table, Text
from leaderboards.report.subject import Subject
from leaderboards.report.words import number, plural
from leaderboards.site.pictures import (
    Example,
    changed_features,
    is_picture,
    pictures_of,
    stored_examples,
)
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict

MOST = 12
"""Broken samples that are shown: the first by their ids."""


def failures(subject: Subject) -> Iterator[Block]:
    """Yield the broken samples."""
    broken = _broken(subject)
    counts = subject.summary.counts
    what = "bent" if subject.manifest.protocol.explanation is not None else "broken"
    if broken.empty:
        yield Text(f"No sample was {what}.")
        return
    data = subject.manifest.data
    names = [one_line(name, 40) for name in data.classes]
    shown = broken.iloc[:MOST]
    yield Text(
        f"{plural(counts.broken, 'sample')} {'was' if counts.broken == 1 else 'were'} {what}"
        + (f"; the first {len(shown)} by their ids are shown." if len(broken) > MOST else ":")
    )
    rows = tuple(
        (str(sample), _name(names, row["label"]), _name(names, row["prediction"]),
         one_line(str(row["step"])), number(row["distance"]), number(row["margin"]))
        for sample, row in shown.iterrows()
    )  # fmt: skip
    header = ("sample", "label", "attacked: seen as", "step", "distance", "margin")
    yield Table(header, rows, left=4)
    yield from _pictures(subject, names, broken)


def _broken(subject: Subject) -> pd.DataFrame:
    settled = subject.entry.settled
    rows = pd.concat([frame.assign(step=step) for step, frame in subject.frames.items()])
    rows = rows[rows["verdict"].isin([Verdict.BROKEN])]
    own = rows["step"].to_numpy() == settled["settled_by"].reindex(rows["sample_id"]).to_numpy()
    found: pd.DataFrame = rows[own].set_index("sample_id").sort_index()
    return found


def _name(names: list[str], place: object) -> str:
    return "-" if pd.isna(place) else names[int(place)]  # type: ignore[call-overload]


def _pictures(subject: Subject, names: list[str], broken: pd.DataFrame) -> Iterator[Block]:
    entry = subject.entry
    try:
        examples = stored_examples(entry, RunStore.open(entry.folder))
    except RecordError as error:
        problem = str(error).replace(str(entry.folder), entry.manifest.run_id)
        yield Alarm(f"The stored adversarial examples are not shown: {problem}")
        return
    if not examples:
        yield Text(
            "The run did not keep its adversarial examples (--save-adversarial keeps them), so "
            "there is nothing to show, and nobody can replay them."
        )
        return
    if is_picture(entry.manifest.data.shape):
        yield Figures(
            tuple((_caption(e, broken, names), tuple(_files(subject, e))) for e in examples[:MOST])
        )
        yield Text(
            "Difference: blue is darker, red is lighter, white is unchanged (of colour pictures "
            "grey is unchanged); scaled to the largest change in the sample."
        )
        return
    yield Text("The features that changed most, in input units:")
    rows = tuple(
        (str(e.sample), str(place), number(clean), number(changed), f"{changed - clean:+.4g}")
        for e in examples[:MOST]
        for place, clean, changed in changed_features(e)[:3]
    )
    yield Table(("sample", "feature", "clean", "changed", "difference"), rows, left=2)


def _caption(example: Example, broken: pd.DataFrame, names: list[str]) -> str:
    if example.sample not in broken.index:
        return f"sample {example.sample}"
    row = broken.loc[example.sample]
    seen, label = _name(names, row["prediction"]), _name(names, row["label"])
    return f"sample {example.sample}: {label}, seen as {seen} ({one_line(example.step, 40)})"


def _files(subject: Subject, example: Example) -> Iterator[tuple[str, bytes]]:
    yield from pictures_of(example, subject.manifest.data).items()

"""What runs about changes in no norm ball found: corruptions, and simple transformations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from leaderboards.manifest import Count, Record, Severity, Slug, Text
from leaderboards.rates import Rate, Share
from leaderboards.verdicts import CLEAN_STEP, Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

Strength = Annotated[float, Field(ge=0)]


class CorruptionCell(Record):
    """Accuracy under one kind of corruption at one severity."""

    kind: Slug
    """Kind of corruption: the name of a step."""
    severity: Severity
    """1 (weakest) to 5."""
    accuracy: Rate
    """Correct under it, of all samples; of an incomplete run, of those begun."""


class CorruptionSummary(Record):
    """Accuracy under common corruptions."""

    cells: tuple[CorruptionCell, ...]
    """Kind by kind, severities ascending."""
    mean_accuracy: Share | None
    """Mean over kinds and severities, each of the same weight; null if incomplete."""
    worst_kind: Slug | None
    """The kind with the lowest mean over its severities, the first of several; null likewise."""
    worst_accuracy: Share | None
    """That mean; null likewise."""


class TransformationShare(Record):
    """What one family of transformations does, of the samples that are right as they are."""

    name: Slug
    """The family: the name of a step."""
    unit: Text
    """Of its strength."""
    tried: Count | None = None
    """Samples it was tried on: of a mixture those that no family broke. Absent in older records."""
    broken: Rate | None
    """Samples that it breaks, of those; null where it was tried on none. In older records, without
    `tried`, of all that are right."""
    weakest: Count
    """Those of them that no other family breaks at a smaller share of its range."""
    median_strength: Strength | None
    """Median of the smallest strength of the grid that breaks a sample, of those it breaks."""


class TransformationSummary(Record):
    """Which simple transformations break samples; null shares where the run is incomplete."""

    families: tuple[TransformationShare, ...]
    """One for each family, and `mixture` of what no family breaks alone."""


def classes_under(frame: pd.DataFrame, severities: int) -> npt.NDArray[np.float64]:
    """The class predicted at each severity, NaN where there is none, (rows, severities).

    Args:
        frame: Rows of a kind of corruption.
        severities: How many there are.
    """
    lists = [np.full(severities, np.nan) if v is None else v for v in frame["predictions"]]
    return np.array(lists, dtype=np.float64).reshape(len(frame), severities)


def right_under(frame: pd.DataFrame, severities: int) -> npt.NDArray[np.bool_]:
    """Which samples are classified rightly at each severity; see `classes_under`."""
    right: npt.NDArray[np.bool_] = (
        classes_under(frame, severities) == frame["label"].to_numpy()[:, None]
    )
    return right


def corruption_summary(
    store: RunStore, frames: dict[str, pd.DataFrame], complete: bool
) -> CorruptionSummary | None:
    """Return the part of a summary that is about corruptions; null where the run is not."""
    corruption = store.manifest.protocol.corruption
    if corruption is None:
        return None
    cells, means = [], {}
    for step, frame in frames.items():
        if step == CLEAN_STEP:
            continue
        right = right_under(frame, len(corruption.severities))
        for severity, column in zip(corruption.severities, right.T, strict=True):
            if (rate := Rate.of(int(column.sum()), len(column))) is not None:
                cells.append(CorruptionCell(kind=step, severity=severity, accuracy=rate))
        if complete:
            means[step] = float(right.mean())
    worst = min(means, key=lambda kind: means[kind]) if means else None
    return CorruptionSummary(
        cells=tuple(cells),
        mean_accuracy=float(np.mean(list(means.values()))) if means else None,
        worst_kind=worst,
        worst_accuracy=means[worst] if worst else None,
    )


def transformation_summary(
    store: RunStore, frames: dict[str, pd.DataFrame]
) -> TransformationSummary | None:
    """Return the part of a summary that is about transformations; null where the run is not."""
    if store.manifest.protocol.transformation is None:
        return None
    units = {s.name: str(s.parameters.get("unit")) for s in store.manifest.protocol.steps}
    share = least_shares(frames)
    least, families = share.min(axis=1), []
    for step, unit in units.items():
        frame = frames[step]
        broken = frame["verdict"].isin([Verdict.BROKEN])
        strengths = frame.loc[broken, "strength"]
        families.append(
            TransformationShare(
                name=step,
                unit=unit,
                tried=len(frame),
                broken=Rate.of(int(broken.sum()), len(frame)),
                weakest=int((share[step].notna() & (share[step] == least)).sum()),
                median_strength=float(strengths.median()) if len(strengths) else None,
            )
        )
    return TransformationSummary(families=tuple(families))


def before_tried(found: TransformationSummary, right: int | None) -> TransformationSummary:
    """Return a summary as it was written before there was `tried`.

    Args:
        found: As it is written now.
        right: Samples that are right as they are; None where the run is incomplete.
    """
    families = []
    for family in found.families:
        k, n = 0 if family.broken is None else family.broken.k, family.tried or 0
        if (rate := Rate.of(k, n if right is None else right)) is not None:
            families.append(family.model_copy(update={"tried": None, "broken": rate}))
    return TransformationSummary(families=tuple(families))


def least_shares(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The smallest share of its range at which each family breaks each sample, NaN where none does.

    Args:
        frames: The rows of every step, `clean` among them.

    Returns:
        Indexed by sample id, a column for each family.
    """
    index = frames[CLEAN_STEP]["sample_id"]
    found = {}
    for step, frame in frames.items():
        if step != CLEAN_STEP:
            broken = frame[frame["verdict"].isin([Verdict.BROKEN])].set_index("sample_id")
            found[step] = broken["strength_share"].reindex(index)
    return pd.DataFrame(found, index=index)


def corruption_rules(
    frame: pd.DataFrame, clean: pd.DataFrame, severities: int
) -> dict[str, pd.Series[bool]]:
    """Return what would be wrong with the rows of a corruption, and for each in which it is.

    Args:
        frame: Rows of the step.
        clean: Rows of `clean`.
        severities: How many there are.
    """
    found = classes_under(frame, severities)
    label = frame["label"].to_numpy()[:, None]
    misses = ((found != label) & ~np.isnan(found)).any(1)
    right = frame["sample_id"].isin(clean["sample_id"][clean["verdict"].isna()]).to_numpy()
    place = frame["iteration"].astype("Float64").fillna(0).to_numpy(np.int64)
    at = found[np.arange(len(frame)), place.clip(0, severities - 1)]
    named = frame["prediction"].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    broken = frame["verdict"].isin([Verdict.BROKEN])
    return {
        "broken, but no severity breaks it": broken & ~(misses & right),
        "a severity breaks it, but it is not broken": ~broken & (misses & right),
        "the prediction is not that of its severity": ~np.isnan(named) & (at != named),
        "of a severity that there is not": pd.Series(place >= severities, index=frame.index),
    }

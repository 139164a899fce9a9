"""How near the nearest adversarial example is: at least what was proved, at most what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from leaderboards.manifest import Count, Manifest, Record
from leaderboards.rates import Rate
from leaderboards.verdicts import CLEAN_STEP, Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

Radius = Annotated[float, Field(ge=0)]

CURVE = "accuracy-curve.csv"
"""The curve's table in the folder of a run that looked for nearest adversarial examples."""
COLUMNS = ("eps", "certified", "empirical", "samples")
"""Columns of the curve's table."""


class Quantiles(Record):
    """How a number lies over the samples that have it; each is that of a sample."""

    samples: Count
    """Samples that have it."""
    minimum: Radius
    """Smallest."""
    q10: Radius
    """A tenth of the samples have at most this."""
    q25: Radius
    """A quarter."""
    median: Radius
    """Half."""
    q75: Radius
    """Three quarters."""
    q90: Radius
    """Nine tenths."""
    maximum: Radius
    """Largest."""


class Radii(Quantiles):
    """Certified radii of the samples that are right; 0 where not even the smallest is proved."""


class Distances(Quantiles):
    """Distances of the nearest adversarial examples that were found."""

    searched: Count
    """Samples they were looked for."""
    within_1_percent: Rate | None
    """Those of them whose distance exceeds the certified radius by 1% at most; null without any."""
    within_10_percent: Rate | None
    """By 10% at most."""


def distance_bounds(manifest: Manifest, frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what is known of each sample's distance, in the threat model's norm and unit.

    Args:
        manifest: Of the run.
        frames: The rows of every step, in the protocol's order.

    Returns:
        Indexed by sample id: `right` on the clean input; `lower`, the certified radius (eps where
        that alone was proved, 0 where nothing was); `upper`, the smallest distance of an
        adversarial example (NaN: none found) and the step `found_by`; `failed`, whether an attack
        or the clean step ended in an error there.
    """
    index, eps = pd.Index(manifest.data.sample_ids, name="sample_id"), manifest.protocol.threat.eps
    clean = frames[CLEAN_STEP].set_index("sample_id")["verdict"].reindex(index)
    seen = index.isin(frames[CLEAN_STEP]["sample_id"])
    rows = pd.concat([frame.assign(step=step) for step, frame in frames.items()])
    proved = np.where(rows["verdict"].isin([Verdict.CERTIFIED]), eps, 0.0)
    lower = rows["radius"].fillna(0.0).clip(lower=proved).groupby(rows["sample_id"]).max()
    found = rows[rows["distance"].notna()].sort_values("distance", kind="stable")
    found = found.drop_duplicates("sample_id").set_index("sample_id").reindex(index)
    proofs = [step.name for step in manifest.protocol.steps if step.kind == "certificate"]
    attacks = rows[~rows["step"].isin(proofs)]
    failed = attacks["sample_id"][attacks["verdict"].isin([Verdict.ERROR])]
    return pd.DataFrame(
        {
            "right": seen & clean.isna().to_numpy(),
            "lower": lower.reindex(index).fillna(0.0).astype(np.float64),
            "upper": found["distance"].astype(np.float64),
            "found_by": found["step"],
            "failed": index.isin(failed),
        },
        index=index,
    )


def accuracy_curve(manifest: Manifest, frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how many samples are certified, and how many are not broken, at every eps.

    Args:
        manifest: Of the run.
        frames: The rows of every step, in the protocol's order.

    Returns:
        `COLUMNS`, by ascending eps: 0, that of the threat model, and every distance where a count
        changes. `certified` counts the samples that are right and whose `lower` (see
        `distance_bounds`) is eps at least: it holds from the point before (exclusive) up to this
        one, and is null where no step proves anything. `empirical` counts those that are right and
        have no example within eps; one on which an attack failed counts up to its `lower` alone. It
        holds from this point up to the next (exclusive).
    """
    bounds, protocol = distance_bounds(manifest, frames), manifest.protocol
    right = bounds[bounds["right"]]
    lower = np.sort(right["lower"].to_numpy())
    beyond = np.nextafter(right["lower"], np.inf)
    lost = np.sort(right["upper"].where(~right["failed"], beyond).dropna().to_numpy())
    points = np.unique(np.concatenate([[0.0, protocol.threat.eps], lower, lost]))
    proved = len(right) - np.searchsorted(lower, points, "left")
    proves = any(step.kind == "certificate" for step in protocol.steps)
    certified = pd.array(proved if proves else [pd.NA] * len(points), dtype="Int64")
    empirical = len(right) - np.searchsorted(lost, points, "right")
    table = (points, certified, empirical, np.full(len(points), len(bounds)))
    return pd.DataFrame(dict(zip(COLUMNS, table, strict=True)))


def curve_csv(manifest: Manifest, frames: dict[str, pd.DataFrame]) -> bytes:
    """Return the curve as it is written to disk: `CURVE`."""
    curve = accuracy_curve(manifest, frames)
    return curve.to_csv(index=False, lineterminator="\n").encode()


def radius_summary(certificates: list[pd.DataFrame]) -> Radii | None:
    """Return the quantiles of the certified radii; null if there is none."""
    found = pd.concat([f["radius"].dropna() for f in certificates]) if certificates else None
    if found is None or found.empty:
        return None
    return Radii(samples=len(found), **_quantiles(found))


def distance_summary(store: RunStore, frames: dict[str, pd.DataFrame]) -> Distances | None:
    """Return the quantiles of the distances found; null if nobody looked, or nothing was found."""
    looked = [step.name for step in store.manifest.protocol.steps if step.minimal]
    if not looked:
        return None
    bounds = distance_bounds(store.manifest, frames)
    seen = pd.concat([frames[step]["sample_id"] for step in looked])
    right = bounds[bounds["right"] & bounds.index.isin(seen)]
    found = right["upper"].dropna()
    if found.empty:
        return None
    return Distances(
        samples=len(found),
        searched=len(right),
        within_1_percent=_closed(right, 0.01),
        within_10_percent=_closed(right, 0.1),
        **_quantiles(found),
    )


def _closed(bounds: pd.DataFrame, share: float) -> Rate | None:
    """How often what was found exceeds what was proved by a share at most."""
    proved = bounds["lower"] > 0
    near = proved & (bounds["upper"] <= (1 + share) * bounds["lower"])
    return Rate.of(int(near.sum()), len(bounds)) if proved.any() else None


def _quantiles(found: pd.Series[float]) -> dict[str, float]:
    """The quantiles of `Quantiles`, never between two samples: each was proved, or found."""
    shares = {"minimum": 0, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
    return {k: float(found.quantile(q, "lower")) for k, q in (shares | {"maximum": 1}).items()}

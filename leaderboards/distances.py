"""How near the nearest adversarial example of a sample is: at least what was proved, at most what
was found. And what that says of accuracy against eps."""

from __future__ import annotations

import numpy as np
import pandas as pd

from leaderboards.manifest import Manifest
from leaderboards.verdicts import CLEAN_STEP, Verdict

CURVE = "accuracy-curve.csv"
"""The curve's table in the folder of a run that looked for nearest adversarial examples."""
COLUMNS = ("eps", "certified", "empirical", "samples")
"""Columns of the curve's table."""


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

"""What the rows of a run about explanations have to obey; checked without the model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from leaderboards.cells import NONE, Cells
from leaderboards.manifest import ExplanationInfo, Parameter, ThreatInfo
from leaderboards.verdicts import CLEAN_STEP, StepKind, Verdict

_ROUNDING = 1e-6
"""Relative: norms of one box are rounded one by one."""


def explained_rules(
    frame: pd.DataFrame,
    clean: pd.DataFrame,
    kind: StepKind,
    settings: dict[str, Parameter],
    explanation: ExplanationInfo,
    threat: ThreatInfo,
) -> dict[str, pd.Series[bool]]:
    """Return what would be wrong with a step's rows, and for each in which rows it is.

    Args:
        frame: Rows of the step.
        clean: Rows of `clean`.
        kind: What the step can settle.
        settings: Its parameters.
        explanation: The run's subject.
        threat: What the attacker may do to an input.
    """
    if kind == CLEAN_STEP:
        return {}
    predicted = clean.set_index("sample_id")["prediction"].reindex(frame["sample_id"])
    predicted = predicted.set_axis(frame.index)
    threshold = explanation.criterion.threshold
    if kind == "certificate":
        return _certificate_rules(frame, explanation)
    broken = frame["verdict"].isin([Verdict.BROKEN])
    distance, precise = frame["explanation_distance"], frame["explanation_distance64"]
    beyond = (distance > threshold) & ~(precise <= threshold)
    rules = {
        "bent, but its distance is not beyond the threshold": broken & ~beyond,
        "beyond the threshold, but not bent": beyond & frame["verdict"].isna(),
        "bent, but the perturbation is not within eps": broken & ~(frame["distance"] <= threat.eps),
        "bent, but the prediction is not the clean one": broken
        & (frame["prediction"] != predicted).fillna(True).astype(bool),
    }
    steps, restarts = settings.get("steps"), settings.get("restarts")
    if isinstance(steps, int) and isinstance(restarts, int):
        rules |= {
            "found after the last step": (frame["iteration"] > steps).fillna(False).astype(bool),
            "found after the last restart": (frame["restart"] >= restarts)
            .fillna(False)
            .astype(bool),
            "not looked at": frame["forwards"] < 1,
        }
    return rules


def _certificate_rules(
    frame: pd.DataFrame, explanation: ExplanationInfo
) -> dict[str, pd.Series[bool]]:
    certified = frame["verdict"].isin([Verdict.CERTIFIED])
    bound = frame["explanation_bound"]
    within = bound <= explanation.criterion.threshold
    silent = Cells(frame).reason == NONE
    linf, mean, l1, l2 = (frame[f"deviation_{n}"] for n in ("linf", "mean", "l1", "l2"))
    more = 1 + _ROUNDING
    rules = {
        "certified, but its bound is not within the threshold": certified & ~within,
        "its bound is within the threshold, but it is not certified": within
        & frame["verdict"].isna(),
        "certified, but by no method": certified & frame["method"].isna(),
        "left open without a reason": frame["verdict"].isna() & silent,
        "its deviations contradict each other": (linf > l2 * more)
        | (l2 > l1 * more)
        | (mean > linf * more),
        "its widths contradict each other": (frame["width_mean"] > frame["width_max"] * more)
        | (frame["deviation_linf"] > frame["width_max"] * more),
        "its norms contradict each other": frame["sup_norm"] > frame["lipschitz"] * more,
    }
    own = _own_measure(frame, explanation)
    if own is not None:
        far = (bound - own).abs() > _ROUNDING * np.maximum(bound.abs(), 1)
        rules["its bound is not what its box says"] = far | (bound.notna() & own.isna())
    return rules


def _own_measure(frame: pd.DataFrame, explanation: ExplanationInfo) -> pd.Series[float] | None:
    """What the box says of the criterion itself, where a column holds that."""
    criterion = explanation.criterion
    if criterion.measure in ("linf", "l2", "l1", "mean") and not criterion.relative:
        return frame[f"deviation_{criterion.measure}"]
    if criterion.measure == "cosine":
        return 1 - frame["cosine"]
    return None

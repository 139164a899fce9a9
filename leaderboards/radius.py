"""What radii of a smoothed classifier have to obey: they follow from the votes on record."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import betaincinv, ndtri

from leaderboards.manifest import Parameter, ThreatInfo
from leaderboards.verdicts import Verdict

_MAX_DRAWS = 2**53
_TOLERANCE = 1e-9
"""Relative: scipy's functions differ by less between versions."""


def radius_rules(
    frame: pd.DataFrame, settings: dict[str, Parameter], threat: ThreatInfo
) -> dict[str, pd.Series[bool]]:
    """Return what would be wrong with a step's radii, and for each in which rows it is.

    Args:
        frame: Rows of the step.
        settings: Its parameters; `sigma`, `n` and `alpha` say that it smooths.
        threat: What the attacker may do, in L2.
    """
    radius, votes = frame["radius"], frame["votes"]
    given = radius.notna()
    sigma, n, alpha = (settings.get(name) for name in ("sigma", "n", "alpha"))
    if not (isinstance(sigma, float) and isinstance(alpha, float) and isinstance(n, int)):
        return {"a radius, but the step does not smooth": given}
    if not 0 < n <= _MAX_DRAWS:
        return {"a radius, but the step does not smooth": given}
    hits = votes.fillna(0).to_numpy(np.float64).clip(0, n)
    proven = sigma * ndtri(betaincinv(np.maximum(hits, 1), n - hits + 1, alpha))
    certified = frame["verdict"].isin([Verdict.CERTIFIED])
    beyond = radius > threat.eps
    return {
        "another number of passes than the protocol has": frame["forwards"] != n,
        "more votes than draws": (votes > n).fillna(False).astype(bool),
        "its radius is more than its votes prove": given & ~(radius <= proven * (1 + _TOLERANCE)),
        "a radius, but the prediction is not the label": given
        & (frame["prediction"] != frame["label"]).fillna(True).astype(bool),
        "certified, but its radius is not beyond eps": certified & ~beyond,
        "a radius beyond eps, but not certified": beyond & ~certified,
    }

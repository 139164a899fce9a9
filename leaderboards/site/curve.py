"""Accuracy against eps: what is proved from below, what was found from above."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from leaderboards.manifest import ThreatInfo
from leaderboards.site.svg import Axes, join, picture, polyline, short, text

_BEYOND = 3.0
"""How far the plot goes beyond the threat model's eps, at most, in parts of it."""

Floats = npt.NDArray[np.float64]


def curve_plot(curve: pd.DataFrame, threat: ThreatInfo) -> Markup:
    """Return the plot of `leaderboards.distances.accuracy_curve`."""
    eps = curve["eps"].to_numpy(np.float64)
    n = max(int(curve["samples"].iloc[0]), 1)
    last = float(eps[-1])
    reach = min(last, _BEYOND * threat.eps) if threat.eps else last
    reach = reach or 1.0
    axes = Axes((0.0, reach), (0.0, 100.0), 480, 300)
    empirical = 100 * curve["empirical"].to_numpy(np.float64) / n
    found = _steps(axes, eps, empirical, before=False)
    floor = axes.at_y(0.0)
    parts = [axes.frame(f"eps ({threat.norm})", "accuracy, %")]
    proves = not bool(curve["certified"].isna().any())
    if proves:
        certified = 100 * curve["certified"].astype("float64").to_numpy() / n
        proved = _steps(axes, eps, certified, before=True)
        closed = [*proved, (proved[-1][0], floor), (proved[0][0], floor)]
        parts.append(Markup('<path class="c area" d="{}Z"/>').format(polyline(closed)))
        between = [*found, *proved[::-1]]
        parts.append(Markup('<path class="u area" d="{}Z"/>').format(polyline(between)))
        parts.append(Markup('<path class="line c" d="{}"/>').format(polyline(proved)))
    parts.append(Markup('<path class="line b" d="{}"/>').format(polyline(found)))
    if 0 < threat.eps <= reach:
        x = axes.at_x(threat.eps)
        parts.append(
            Markup('<path class="eps" d="M{0} {1}V{2}"/>').format(short(x), axes.top, short(floor))
        )
        parts.append(text(x + 4, axes.top + 12, f"eps {threat.eps:g}", kind="name"))
    told = "Accuracy against eps: found by attacks from above" + (
        ", proved from below; the truth lies between." if proves else "; nothing was proved."
    )
    return picture(axes.width, axes.height, "Accuracy against eps", told, join(parts))


def _steps(axes: Axes, eps: Floats, share: Floats, before: bool) -> list[tuple[float, float]]:
    """Corners of a step function, at most one step a pixel.

    Args:
        axes: The frame.
        eps: (n,), ascending from 0.
        share: (n,), in percent.
        before: Whether a share holds up to its eps (else from it on).
    """
    last = int(np.searchsorted(eps, axes.x[1], "left" if before else "right"))
    eps, share = eps[: last + before].clip(max=axes.x[1]), share[: last + before]
    corners = [(axes.at_x(0.0), axes.at_y(float(share[0])))]
    for i in range(1, len(eps)):
        x, y = axes.at_x(float(eps[i])), axes.at_y(float(share[i]))
        if i < len(eps) - 1 and x - corners[-1][0] < 0.5:
            continue
        corner = (corners[-1][0], y) if before else (x, corners[-1][1])
        corners.extend([corner, (x, y)])
    end = axes.at_x(axes.x[1])
    if corners[-1][0] < end:
        corners.append((end, corners[-1][1]))
    return corners

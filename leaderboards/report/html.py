"""The report as one HTML file that holds all it needs: no script, no request, all text escaped."""

from __future__ import annotations

import base64
from typing import Any

from markupsafe import Markup

from leaderboards.report.blocks import Curve, Report, Sandwich
from leaderboards.site.bars import sandwich
from leaderboards.site.curve import curve_plot
from leaderboards.site.render import templates_of


def render(report: Report) -> bytes:
    """Return the file."""
    environment = templates_of("leaderboards.report")
    environment.filters |= {"kind": _kind, "png": _png, "drawn": _drawn}
    text = environment.get_template("report.html").render(report=report)
    return (text.rstrip() + "\n").encode()


def _kind(block: Any) -> str:
    return type(block).__name__


def _png(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _drawn(block: Sandwich | Curve) -> Markup:
    if isinstance(block, Sandwich):
        return sandwich(block.counts, block.marks, dict(block.names))
    return curve_plot(block.curve, block.threat)

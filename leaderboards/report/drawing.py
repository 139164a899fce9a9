"""Plots of the PDF, drawn by its own lines and areas."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from leaderboards.report.blocks import Curve, Sandwich
from leaderboards.site.svg import ticks

COLOURS = {
    "certified": (26, 127, 75),
    "undecided": (201, 162, 39),
    "broken": (180, 35, 24),
    "wrong": (110, 119, 129),
    "error": (125, 60, 152),
    "not_run": (200, 204, 209),
}
_INK, _GRID = (27, 31, 36), (208, 215, 222)
_BEYOND = 3.0
"""How far the curve is drawn, in parts of the threat model's eps."""

Floats = npt.NDArray[np.float64]


def draw_sandwich(page: Any, block: Sandwich, left: float, width: float) -> None:
    """Draw all samples by verdict, and the rates above them with their intervals."""
    told, names = block.counts.model_dump(), dict(block.names)
    total = sum(told.values()) or 1
    y = page.get_y() + 2
    _pen(page, _INK)
    page.set_font("DejaVu", "", 7.5)
    page.set_text_color(*_INK)
    floor = y + 5 * len(block.marks) + 1
    for i, (name, rate) in enumerate(block.marks):
        if rate is None:
            continue
        at, line = left + width * rate.value, y + 5 * i + 2
        low, high = left + width * rate.lower, left + width * rate.upper
        page.line(low, line, high, line)
        page.line(at, line - 1, at, floor)
        words = f"{name} {rate.value:.2%}"
        wide = page.get_string_width(words) + 3
        before = low - left > wide
        page.set_xy(low - wide - 1 if before else high + 1.5, line - 2)
        page.cell(wide, 4, words, align="R" if before else "L")
    begin = left
    for name, colour in COLOURS.items():
        share = width * told[name] / total
        if not share:
            continue
        page.set_fill_color(*colour)
        page.rect(begin, floor, share, 9, "F")
        shown = names.get(name, name).replace("_", " ")
        if page.get_string_width(shown) + 2 < share:
            page.set_text_color(
                *((255, 255, 255) if name not in ("undecided", "not_run") else _INK)
            )
            page.set_xy(begin, floor + 2.5)
            page.cell(share, 4, shown, align="C")
            page.set_text_color(*_INK)
        begin += share
    page.set_font_size(6.5)
    for percent in range(0, 101, 10):
        at = left + width * percent / 100
        page.line(at, floor + 9, at, floor + 10)
        page.set_xy(at - 6, floor + 10)
        page.cell(12, 3.5, f"{percent}%", align="C")
    page.set_xy(left, floor + 15)
    page.set_font_size(7.5)
    page.cell(width, 4, ", ".join(words for _, words in block.legend()))
    page.set_xy(left, floor + 21)


def draw_curve(page: Any, block: Curve, left: float, width: float) -> None:
    """Draw accuracy against eps: proved from below, found from above, the unknown between."""
    eps = block.curve["eps"].to_numpy(np.float64)
    n = max(int(block.curve["samples"].iloc[0]), 1)
    reach = float(min(eps[-1], _BEYOND * block.threat.eps)) if block.threat.eps else float(eps[-1])
    reach = reach or 1.0
    top, height, inset = page.get_y() + 3, 62.0, 12.0
    floor, across = top + height, width - inset - 2

    def place(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(left + inset + across * x / reach, floor - height * y) for x, y in points]

    found = place(_corners(eps, block.curve["empirical"].to_numpy(np.float64) / n, reach, False))
    _pen(page, _GRID)
    page.set_font("DejaVu", "", 6.5)
    page.set_text_color(*_INK)
    for part in range(0, 6):
        y = floor - height * part / 5
        page.line(left + inset, y, left + inset + across, y)
        page.set_xy(left, y - 2)
        page.cell(inset - 1, 4, f"{20 * part}%", align="R")
    for value in ticks(0.0, reach):
        page.set_xy(left + inset + across * value / reach - 8, floor + 1)
        page.cell(16, 3.5, f"{value:g}", align="C")
    if not bool(block.curve["certified"].isna().any()):
        shares = block.curve["certified"].astype("float64").to_numpy() / n
        proved = place(_corners(eps, shares, reach, True))
        ends = [(proved[-1][0], floor), (proved[0][0], floor)]
        for points, colour in (
            ([*proved, *ends], "certified"),
            ([*found, *proved[::-1]], "undecided"),
        ):
            page.set_fill_color(*(round(0.65 * 255 + 0.35 * c) for c in COLOURS[colour]))
            page.polygon(points, style="F")
        _pen(page, COLOURS["certified"], 0.5)
        page.polyline(proved)
    _pen(page, COLOURS["broken"], 0.5)
    page.polyline(found)
    if 0 < block.threat.eps <= reach:
        x = left + inset + across * block.threat.eps / reach
        _pen(page, _INK)
        page.set_dash_pattern(1, 1)
        page.line(x, top, x, floor)
        page.set_dash_pattern()
    page.set_xy(left + inset, floor + 5)
    page.set_font_size(7.5)
    page.cell(across, 4, f"eps ({block.threat.norm}); red: empirical, green: certified; dashed: "
              f"eps {block.threat.eps:g}", align="C")  # fmt: skip
    page.set_xy(left, floor + 12)


def _pen(page: Any, colour: tuple[int, int, int], width: float = 0.25) -> None:
    page.set_draw_color(*colour)
    page.set_line_width(width)


def _corners(eps: Floats, share: Floats, reach: float, before: bool) -> list[tuple[float, float]]:
    """Corners of a step function up to `reach`; `before`: a share holds up to its eps."""
    corners = [(0.0, float(share[0]))]
    for at, value in zip(eps[1:].tolist(), share[1:].tolist(), strict=True):
        x = min(at, reach)
        corners += (
            [(corners[-1][0], value), (x, value)] if before else [(x, corners[-1][1]), (x, value)]
        )
        if at >= reach:
            break
    if corners[-1][0] < reach:
        corners.append((reach, corners[-1][1]))
    return corners

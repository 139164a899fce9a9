"""Pareto plots: two numbers of each run, of which larger is better, and the front of the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from leaderboards.site.svg import Axes, join, link, picture, polyline, short, text

MOST_LINKS = 150
"""Points that lead to pages; of more, those on the front do, and the rest is drawn at once."""
_LABELS = 8
_LETTER = 5.6
"""Width of a letter of a label, about."""


@dataclass(frozen=True)
class Point:
    """A run.

    Attributes:
        x: First number, in percent.
        y: Second number, in percent.
        name: The model's.
        href: Its page.
    """

    x: float
    y: float
    name: str
    href: str


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in one number without losing in the other.

    Those that equal one on the front in both are on it. By ascending `x`.
    """
    best, found = float("-inf"), list[Point]()
    for point in sorted(points, key=lambda p: (-p.x, -p.y, p.name, p.href)):
        equal = bool(found) and (point.x, point.y) == (found[-1].x, found[-1].y)
        if point.y > best or equal:
            found.append(point)
            best = point.y
    return found[::-1]


def pareto(points: Sequence[Point], title: str, x_title: str, y_title: str) -> Markup:
    """Return the plot; nothing where there are fewer than two points."""
    if len(points) < 2:
        return Markup("")
    axes = Axes(_range([p.x for p in points]), _range([p.y for p in points]))
    best = front(points)
    corners = list[tuple[float, float]]()
    for point in best:
        x, y = axes.at_x(point.x), axes.at_y(point.y)
        if corners:
            corners.append((corners[-1][0], y))
        corners.append((x, y))
    ordered = sorted(points, key=lambda p: (p.x, p.y, p.name, p.href))
    on_front = {id(point) for point in best}
    others = [point for point in ordered if id(point) not in on_front]
    linked = ordered if len(points) <= MOST_LINKS else best[:MOST_LINKS]
    parts = [axes.frame(x_title, y_title)]
    if len(points) > MOST_LINKS:
        dots = "".join(f"M{short(axes.at_x(p.x))} {short(axes.at_y(p.y))}h0" for p in others)
        parts.append(Markup('<path class="dots" d="{}"/>').format(dots))
    if len(corners) > 1:
        parts.append(Markup('<path class="front" d="{}"/>').format(polyline(corners)))
    for point in linked:
        kind = "best" if id(point) in on_front else "point"
        circle = Markup('<circle class="{0}" cx="{1}" cy="{2}" r="4.5"/>').format(
            kind, short(axes.at_x(point.x)), short(axes.at_y(point.y))
        )
        words = f"{point.name}: {x_title} {point.x:.2f}, {y_title} {point.y:.2f}"
        parts.append(link(point.href, words, circle))
    parts.extend(_labels(axes, best))
    told = f"{len(points)} runs; on the front: " + ", ".join(
        f"{p.name} ({p.x:.2f}, {p.y:.2f})" for p in best[:_LABELS]
    )
    return picture(axes.width, axes.height, title, told, join(parts))


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max((high - low) * 0.08, 1.0)
    return max(low - margin, 0.0), min(high + margin, 100.0)


def _labels(axes: Axes, best: Sequence[Point]) -> list[Markup]:
    """Names above and left of points of the front, clear of its line, where there is room."""
    taken, labels = list[tuple[float, float, float]](), list[Markup]()
    for point in best:
        name = point.name if len(point.name) <= 24 else point.name[:23] + "…"
        width = len(name) * _LETTER
        x, y = axes.at_x(point.x), axes.at_y(point.y)
        left = x - 4 - width if x - 4 - width > axes.left else x + 8
        if left + width > axes.width or len(labels) == _LABELS:
            continue
        y = min(max(y - 7, axes.top + 10), axes.height - axes.bottom - 4)
        if any(abs(y - b) < 12 and left < a + w and a < left + width for a, b, w in taken):
            continue
        taken.append((left, y, width))
        labels.append(text(left, y, name, kind="name"))
    return labels

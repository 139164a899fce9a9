"""The parts of plots: small pure functions from numbers to SVG, the same bytes each time.

Colours come from classes of site.css, so that plots follow the theme; nothing has a `style`, which
the pages' policy forbids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from leaderboards.errors import one_line


def short(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`, at most about `most` of them."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    rough = span / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


@dataclass(frozen=True)
class Axes:
    """A plot's frame: where numbers lie on it.

    Attributes:
        x: Smallest and largest number along.
        y: Smallest and largest number upwards.
        width: Of the whole picture.
        height: Likewise.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 420
    height: int = 300
    left: int = 52
    right: int = 14
    top: int = 12
    bottom: int = 44

    def at_x(self, value: float) -> float:
        """Return where a number lies along."""
        share = (value - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        return self.left + share * (self.width - self.left - self.right)

    def at_y(self, value: float) -> float:
        """Return where a number lies upwards."""
        share = (value - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def frame(self, x_title: str, y_title: str) -> Markup:
        """Return grid, numbers and titles of both axes."""
        floor, ceiling = self.height - self.bottom, self.top
        wall, parts = self.width - self.right, []
        for value in ticks(*self.x):
            x = short(self.at_x(value))
            parts.append(Markup('<path class="grid" d="M{0} {1}V{2}"/>').format(x, ceiling, floor))
            parts.append(text(self.at_x(value), floor + 16, f"{value:g}", "middle"))
        for value in ticks(*self.y):
            y = self.at_y(value)
            parts.append(
                Markup('<path class="grid" d="M{0} {1}H{2}"/>').format(self.left, short(y), wall)
            )
            parts.append(text(self.left - 6, y + 4, f"{value:g}", "end"))
        parts.append(text((self.left + wall) / 2, self.height - 8, x_title, "middle", "title"))
        middle = short((floor + ceiling) / 2)
        parts.append(
            Markup('<text class="title" text-anchor="middle" transform="rotate(-90)" '
                   'x="-{0}" y="14">{1}</text>').format(middle, y_title)
        )  # fmt: skip
        return join(parts)


def join(parts: Iterable[Markup]) -> Markup:
    """Return parts of a picture as one."""
    return Markup("").join(parts)


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> Markup:
    """Return a line of text.

    Args:
        x: Where.
        y: Its base line.
        words: What it says; shown inert.
        anchor: `start`, `middle` or `end`.
        kind: Class in site.css.
    """
    named = Markup(' class="{}"').format(kind) if kind else ""
    return Markup('<text{0} text-anchor="{1}" x="{2}" y="{3}">{4}</text>').format(
        named, anchor, short(x), short(y), one_line(words, 60)
    )


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Return the path through points, for the attribute `d`."""
    return "M" + "L".join(f"{short(x)} {short(y)}" for x, y in points)


def picture(
    axes_width: int, axes_height: int, title: str, told: str, content: Markup, kind: str = "plot"
) -> Markup:
    """Return a whole picture.

    Args:
        axes_width: Width in its own units.
        axes_height: Height likewise.
        title: Its name.
        told: What it shows, for those who do not see it.
        content: What is in it.
        kind: Class in site.css.
    """
    return Markup(
        '<svg class="{0}" role="group" viewBox="0 0 {1} {2}" width="{1}" height="{2}">'
        "<title>{3}</title><desc>{4}</desc>{5}</svg>"
    ).format(kind, axes_width, axes_height, one_line(title, 200), one_line(told, 600), content)


def link(href: str, words: str, content: Markup) -> Markup:
    """Return a part of a picture that leads to a page of the site.

    Args:
        href: Made of slugs only.
        words: What it is, as its name.
        content: What is clicked on.
    """
    return Markup('<a href="{0}">{1}<title>{2}</title></a>').format(
        href, content, escape(one_line(words, 160))
    )

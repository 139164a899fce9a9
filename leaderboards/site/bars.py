"""Bars of verdicts: the sandwich of a run, small in a table and large on its page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from leaderboards.rates import Rate
from leaderboards.site.svg import join, picture, short, text
from leaderboards.summary import Counts

PARTS = ("certified", "undecided", "broken", "wrong", "error", "not_run")
"""Verdicts from the surest to the least; each is a class in site.css."""
_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 122, 10, 54


def _shares(counts: Counts) -> list[tuple[str, float, float]]:
    """Verdict, begin and width, in percent; those of no sample left out."""
    total = sum(getattr(counts, part) for part in PARTS) or 1
    found, begin = [], 0.0
    for part in PARTS:
        width = 100 * getattr(counts, part) / total
        if width:
            found.append((part, begin, width))
        begin += width
    return found


def small_bar(counts: Counts) -> Markup:
    """Return the bar of a row."""
    shares = _shares(counts)
    parts = join(
        Markup('<rect class="{0}" x="{1}" width="{2}" height="8"/>').format(
            part[0], short(begin), short(width)
        )
        for part, begin, width in shares
    )
    told = ", ".join(f"{part.replace('_', ' ')} {width:.1f}%" for part, _, width in shares)
    return Markup('<svg class="bar" role="img" aria-label="{0}" viewBox="0 0 100 8">{1}</svg>'
                  ).format(told, parts)  # fmt: skip


def sandwich(
    counts: Counts, marks: Sequence[tuple[str, Rate | None]], names: dict[str, str]
) -> Markup:
    """Return the picture of certified <= true <= empirical <= clean.

    Args:
        counts: Samples by verdict.
        marks: Names and rates to point at, from above.
        names: What verdicts are called, where not by their own name.
    """
    scale = (_WIDTH - 2 * _LEFT) / 100
    height = 40
    parts, shares = [], _shares(counts)
    for part, begin, width in shares:
        parts.append(
            Markup('<rect class="{0}" x="{1}" y="{2}" width="{3}" height="{4}"/>').format(
                part[0], short(_LEFT + begin * scale), _TOP, short(width * scale), height
            )
        )
        name = names.get(part, part.replace("_", " "))
        if width * scale > 7 * len(name) + 8:
            middle = _LEFT + (begin + width / 2) * scale
            parts.append(text(middle, _TOP + 25, name, "middle", f"on {part[0]}"))
    for value in range(0, 101, 10):
        x = _LEFT + value * scale
        parts.append(
            Markup('<path class="grid" d="M{0} {1}v6"/>').format(short(x), _TOP + height + 2)
        )
        anchor = "start" if value == 0 else "end" if value == 100 else "middle"
        parts.append(
            text(x, _TOP + height + 22, f"{value}%" if value == 100 else f"{value}", anchor)
        )
    for line, (name, rate) in enumerate(marks):
        if rate is not None:
            parts.append(_mark(name, rate, 12 + 15 * line, scale))
    told = ", ".join(f"{names.get(p, p.replace('_', ' '))} {w:.2f}%" for p, _, w in shares)
    return picture(_WIDTH, _HEIGHT, "Verdicts of all samples", told, join(parts), "sandwich")


def _mark(name: str, rate: Rate, y: int, scale: float) -> Markup:
    """A pin down to the bar with the 95% interval, and its name to the left where there is room."""
    x = _LEFT + 100 * rate.value * scale
    low, high = (_LEFT + 100 * end * scale for end in (rate.lower, rate.upper))
    pin = Markup('<path class="whisker" d="M{0} {1}H{2}M{3} {4}V{5}"/>').format(
        short(low), y, short(high), short(x), y - 4, _TOP - 2
    )
    words = f"{name} {100 * rate.value:.2f}%"
    if low > 8 * len(words):
        return pin + text(low - 6, y + 4, words, "end", "mark")
    return pin + text(high + 6, y + 4, words, "start", "mark")

"""The report as Markdown: the same words and numbers; plots are left to the other formats."""

from __future__ import annotations

import re
from collections.abc import Iterator

from leaderboards.markdown import table
from leaderboards.report.blocks import (
    Alarm,
    Block,
    Code,
    Curve,
    Facts,
    Figures,
    Points,
    Report,
    Sandwich,
    Table,
    Text,
)
from leaderboards.report.words import interval, share

_MARKUP = re.compile(r"[\\`*_\[\]|~#!{}]")
_WORDS = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_BAR = 60
_SIGNS = {
    "certified": "#", "undecided": "?", "broken": "x", "wrong": ".", "error": "!", "not_run": " ",
}  # fmt: skip


def render(report: Report) -> bytes:
    """Return the file."""
    parts = [f"# {inert(report.title)}", inert(report.subtitle)]
    parts.append(f"{report.dated}.")
    for section in report.sections:
        parts.append(f"{'#' * (section.level + 1)} {inert(section.title)}")
        parts += [piece for block in section.blocks for piece in _block(block)]
    return ("\n\n".join([*parts, "---", inert(report.footer)]) + "\n").encode()


def inert(text: str) -> str:
    """Return a line that Markdown shows as it is: no markup, no link, nobody is mentioned."""
    shown = _MARKUP.sub(r"\\\g<0>", "".join(_WORDS.get(c, c) for c in text).replace("#64", "\0"))
    shown = shown.replace("\0", "#64").replace("://", "&#58;//")
    return re.sub(r"\bwww\.", "www&#46;", shown, flags=re.IGNORECASE)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(text):
            yield inert(text)
        case Alarm(text):
            yield f"> **{inert(text)}**"
        case Points(sentences):
            yield "\n".join(f"- {inert(each)}" for each in sentences)
        case Code(text):
            yield "\n".join(f"    {line}" for line in text.splitlines())
        case Table():
            numbers = [i for i in range(len(block.header)) if not block.is_text(i)]
            rows = [tuple(map(inert, row)) for row in block.rows]
            yield table(tuple(map(inert, block.header)), rows, numbers).rstrip()
            if block.note:
                yield inert(block.note)
        case Facts(pairs):
            yield table(("", ""), [(inert(k), inert(v)) for k, v in pairs]).rstrip()
        case Sandwich():
            yield from _sandwich(block)
        case Curve():
            yield "The plot of this curve is in the HTML and PDF forms of the report."
        case Figures(shown):
            yield "The pictures are in the HTML and PDF forms of the report:"
            yield "\n".join(f"- {inert(caption)}" for caption, _ in shown)


def _sandwich(block: Sandwich) -> Iterator[str]:
    told = block.counts.model_dump()
    total, bar, begun = sum(told.values()) or 1, "", 0
    for name, sign in _SIGNS.items():
        begun += told[name]
        bar += sign * (round(_BAR * begun / total) - len(bar))
    legend = ", ".join(f"{_SIGNS[name]} {words}" for name, words in block.legend())
    yield f"    |{bar}|\n    {legend}"
    rows = [(inert(name), share(rate), interval(rate)) for name, rate in block.marks]
    yield table(("rate", "value", "95% interval"), rows, (1, 2)).rstrip()

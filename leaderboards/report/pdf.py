"""The report as a PDF, by fpdf2: the same blocks, drawn natively; no date but that of the runs."""

from __future__ import annotations

import io
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leaderboards.errors import RecordError
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
    Section,
    Table,
    Text,
)
from leaderboards.report.drawing import draw_curve, draw_sandwich

FONT, MONO = "DejaVu", "DejaVuMono"
_FACES = {("", FONT): "DejaVuSans", ("B", FONT): "DejaVuSans-Bold", ("", MONO): "DejaVuSansMono"}
_INK, _SOFT, _RED, _BAND = (27, 31, 36), (87, 96, 106), (180, 35, 24), (246, 248, 250)
_SIDE, _ACROSS = 15.0, 180.0
_SMALLEST = 0.06
"""Share of the width that every column of a table has at least."""


def render(report: Report) -> bytes:
    """Return the file.

    Raises:
        RecordError: fpdf2 is not installed.
    """
    if find_spec("fpdf") is None:
        raise RecordError(
            "a PDF needs fpdf2: pip install 'robustbench-c[pdf]', or write .html or .md"
        )
    page = _page(report)
    page.add_page()
    _set(page, "B", 18)
    page.multi_cell(0, 9, report.title, new_x="LMARGIN", new_y="NEXT")
    _set(page, "", 10, _SOFT)
    subtitle = f"{report.subtitle}, {report.dated}"
    page.multi_cell(0, 5, subtitle, new_x="LMARGIN", new_y="NEXT")
    for number, section in enumerate(report.sections):
        _section(page, section, first=number == 0)
    return bytes(page.output())


def _page(report: Report) -> Any:
    from fpdf import FPDF

    logging.getLogger("fpdf").setLevel(logging.ERROR)  # of characters that the font has not
    logging.getLogger("fontTools").setLevel(logging.ERROR)

    class Pages(FPDF):  # type: ignore[misc,unused-ignore]
        """Pages with a footer."""

        def footer(self) -> None:
            self.set_y(-12)
            _set(self, "", 7, _SOFT)
            self.cell(150, 4, _fitting(self, report.footer, 150))
            self.cell(30, 4, f"page {self.page_no()} of {{nb}}", align="R")

    page = Pages(format="A4")
    page.set_creation_date(report.created)
    page.set_title(f"{report.title}: {report.subtitle}")
    page.set_producer("robustbench-c")
    page.set_lang("en")
    page.set_margins(_SIDE, 14)
    page.c_margin = 0
    page.set_auto_page_break(True, 16)
    for (style, family), name in _FACES.items():
        page.add_font(family, style, _font(name))
    return page


def _font(name: str) -> Path:
    """The font's file, which matplotlib brings along."""
    found = find_spec("matplotlib")
    places = () if found is None else found.submodule_search_locations or ()
    for place in places:
        path = Path(place) / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
        if path.is_file():
            return path
    raise RecordError(f"a PDF needs matplotlib's font {name}: install matplotlib again")


def _set(page: Any, style: str, size: float, colour: tuple[int, int, int] = _INK) -> None:
    page.set_font(FONT, style, size)
    page.set_text_color(*colour)


def _fitting(page: Any, text: str, width: float) -> str:
    while text and page.get_string_width(text) > width:
        text = text[:-2]
    return text


def _section(page: Any, section: Section, first: bool) -> None:
    if section.level == 1 and not first:
        page.add_page()
    page.ln(2 if section.level == 1 else 4)
    if page.will_page_break(25):
        page.add_page()
    page.start_section(section.title, section.level - 1)
    _set(page, "B", 14 if section.level == 1 else 11)
    page.multi_cell(0, 7 if section.level == 1 else 6, section.title, new_x="LMARGIN", new_y="NEXT")
    page.ln(1)
    for block in section.blocks:
        _block(page, block)


def _block(page: Any, block: Block) -> None:
    match block:
        case Text(text):
            _set(page, "", 9)
            page.multi_cell(0, 4.6, text, align="L", new_x="LMARGIN", new_y="NEXT")
            page.ln(1)
        case Alarm(text):
            _set(page, "B", 9, _RED)
            page.set_draw_color(*_RED)
            page.set_line_width(0.5)
            page.multi_cell(
                0, 4.8, text, border=1, align="L", padding=1.5, new_x="LMARGIN", new_y="NEXT"
            )
            page.ln(2)
        case Points(sentences):
            _set(page, "", 9)
            for each in sentences:
                page.set_x(_SIDE + 1)
                page.cell(4, 4.6, "•")
                page.multi_cell(0, 4.6, each, align="L", new_x="LMARGIN", new_y="NEXT")
                page.ln(0.4)
            page.ln(1)
        case Code(text):
            page.set_font(MONO, "", 7.5)
            page.set_text_color(*_INK)
            page.set_fill_color(*_BAND)
            page.multi_cell(
                0, 4, text, fill=True, align="L", padding=1.2, new_x="LMARGIN", new_y="NEXT"
            )
            page.ln(1.5)
        case Table():
            _table(page, block)
            if block.note:
                _set(page, "", 7.5, _SOFT)
                page.multi_cell(0, 3.8, block.note, align="L", new_x="LMARGIN", new_y="NEXT")
            page.ln(2)
        case Facts(pairs):
            _table(page, Table(("", ""), pairs, left=2), (0.28, 0.72))
            page.ln(2)
        case Sandwich():
            _room(page, 42)
            draw_sandwich(page, block, _SIDE, _ACROSS)
        case Curve():
            _room(page, 82)
            draw_curve(page, block, _SIDE, _ACROSS)
        case Figures(shown):
            _figures(page, shown)


def _room(page: Any, height: float) -> None:
    if page.will_page_break(height):
        page.add_page()


def _table(page: Any, block: Table, widths: tuple[float, ...] | None = None) -> None:
    from fpdf.fonts import FontFace

    columns, headed = len(block.header), any(block.header)
    size = 8 if columns <= 6 else 6.8 if columns <= 9 else 6.2
    _set(page, "", size)
    page.set_draw_color(208, 215, 222)
    page.set_line_width(0.2)
    page.set_fill_color(255)
    with page.table(
        col_widths=widths or _widths(page, block.header, block.rows),
        text_align=["LEFT" if block.is_text(i) else "RIGHT" for i in range(columns)],
        headings_style=FontFace(emphasis="BOLD", fill_color=_BAND),
        first_row_as_headings=headed,
        line_height=size * 0.5,
        padding=(0.7, 1.2),
        borders_layout="HORIZONTAL_LINES",
        width=_ACROSS,
        align="LEFT",
    ) as table:
        for cells in (block.header, *block.rows) if headed else block.rows:
            row = table.row()
            for cell in cells:
                row.cell(cell)


def _widths(
    page: Any, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]
) -> tuple[float, ...]:
    """Shares of the width by what the columns hold, so that few cells need two lines."""
    longest = []
    for i, name in enumerate(header):
        words = max((page.get_string_width(word) for word in name.split()), default=0.0) * 1.15
        cells = max((page.get_string_width(row[i]) for row in rows), default=0.0)
        longest.append(max(words, min(cells, 0.5 * _ACROSS)) + 3)
    total = sum(longest)
    shares = [max(width / total, _SMALLEST) for width in longest]
    return tuple(share / sum(shares) for share in shares)


def _figures(page: Any, shown: tuple[tuple[str, tuple[tuple[str, bytes], ...]], ...]) -> None:
    """Two samples in a row, of three pictures each."""
    side, gap, across = 26.0, 2.0, 92.0
    for start in range(0, len(shown), 2):
        _room(page, side + 14)
        top = page.get_y()
        for place, (caption, pictures) in enumerate(shown[start : start + 2]):
            x = _SIDE + place * across
            for i, (title, data) in enumerate(pictures):
                at = x + i * (side + gap)
                page.image(
                    io.BytesIO(data), at, top, side, side, keep_aspect_ratio=True, alt_text=title
                )
                _set(page, "", 6.5, _SOFT)
                page.set_xy(at, top + side)
                page.cell(side, 3.5, title)
            _set(page, "", 7.5)
            page.set_xy(x, top + side + 3.5)
            page.multi_cell(across - 6, 3.6, caption, align="L")
        page.set_xy(_SIDE, top + side + 12)
    page.ln(1)

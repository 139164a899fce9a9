"""A report as the bytes of a file, by its ending."""

from __future__ import annotations

from leaderboards.errors import RecordError
from leaderboards.report.blocks import Report

FORMATS = (".html", ".pdf", ".md")
"""Endings of what can be written."""


def report_bytes(report: Report, suffix: str) -> bytes:
    """Return a report in the format of an ending; the same bytes for the same runs.

    Raises:
        RecordError: Another ending, or a .pdf where fpdf2 is not installed.
    """
    if suffix == ".html":
        from leaderboards.report import html

        return html.render(report)
    if suffix == ".md":
        from leaderboards.report import markdown

        return markdown.render(report)
    if suffix == ".pdf":
        from leaderboards.report import pdf

        return pdf.render(report)
    raise RecordError(f"'{suffix}' is no format of a report: {', '.join(FORMATS)}")

"""Titles of pictures, on as many lines as they take."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure

_WIDTH = 0.58  # of a letter of the usual font, in parts of its size, on the broad side
_POINTS = 72.0  # in an inch


def entitle(figure: Figure, text: str, size: float) -> None:
    """Write a title above all axes: matplotlib would cut off what is wider than the figure.

    Args:
        figure: Has its width.
        text: No mathematics.
        size: Of the letters, in points.
    """
    letters = max(1, int(figure.get_figwidth() * _POINTS / (_WIDTH * size)))
    figure.suptitle(
        textwrap.fill(text, letters, break_on_hyphens=False), fontsize=size, parse_math=False
    )

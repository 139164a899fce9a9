"""What a report is made of; HTML, Markdown and PDF are three ways to show the same blocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from leaderboards.manifest import ThreatInfo
from leaderboards.rates import Rate
from leaderboards.site.bars import PARTS
from leaderboards.summary import Counts


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Alarm:
    """A paragraph that nobody may miss."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """A command, as it is typed."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: Names of its columns.
        rows: Cells.
        left: How many columns, from the first, are text.
        note: What it shows.
        last: Whether the last column is text as well.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    note: str = ""
    last: bool = False

    def is_text(self, place: int) -> bool:
        """Whether a column holds text, and no numbers."""
        return place < self.left or (self.last and place == len(self.header) - 1)


@dataclass(frozen=True)
class Facts:
    """Names and values; hashes and other text without blanks may break anywhere."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sandwich:
    """The picture of all samples by verdict, with the rates that bound the truth.

    Attributes:
        counts: Samples by verdict.
        marks: Names of rates and the rates.
        names: What verdicts are called, where not by their own name.
    """

    counts: Counts
    marks: tuple[tuple[str, Rate | None], ...]
    names: tuple[tuple[str, str], ...] = ()

    def legend(self) -> list[tuple[str, str]]:
        """Verdicts that samples have, from the surest to the least, each with words and count."""
        names, told = dict(self.names), self.counts.model_dump()
        return [
            (part, f"{names.get(part, part.replace('_', ' '))} {told[part]:,}")
            for part in PARTS
            if told[part]
        ]


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy against eps, from both sides: `leaderboards.distances.accuracy_curve`."""

    curve: pd.DataFrame
    threat: ThreatInfo


@dataclass(frozen=True)
class Figures:
    """Pictures of samples: for each a caption, and PNG files by title."""

    shown: tuple[tuple[str, tuple[tuple[str, bytes], ...]], ...]


Block = Text | Alarm | Points | Code | Table | Facts | Sandwich | Curve | Figures


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: Its heading.
        blocks: What is in it.
        level: 1 for a run, 2 for what is said of it.
        anchor: Place to link to: letters, digits and hyphens.
    """

    title: str
    blocks: tuple[Block, ...]
    level: int
    anchor: str


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: On its first page.
        subtitle: Below it.
        created: When the latest of its runs was begun: the date of the report, as it has no other.
        dated: The same in words.
        sections: The first is the page of summary.
        footer: On every page.
    """

    title: str
    subtitle: str
    created: datetime
    dated: str
    sections: tuple[Section, ...]
    footer: str

"""What is wrong with a record: one finding for each thing, with its place and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from leaderboards.errors import one_line

Severity = Literal["error", "warning", "note"]
MOST = 200
"""Findings that are listed of one record; the rest is counted."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found; every text is one printable line.

    Attributes:
        severity: `error`: the record is not to be trusted; `warning`: it is, but it is not whole,
            or not ranked; `note`: good to know.
        place: Where, from the record's folder on.
        problem: What is wrong.
        advice: What to do.
    """

    severity: Severity
    place: str
    problem: str
    advice: str = ""

    def __post_init__(self) -> None:
        for name in ("place", "problem", "advice"):
            object.__setattr__(self, name, one_line(getattr(self, name)))


@dataclass(frozen=True)
class Findings:
    """Everything that was found of one record.

    Attributes:
        record: What was looked at, as it was given.
        run_id: Its name in the manifest; None where that cannot be read.
        found: In the order of the checks, errors among them.
        left_out: Findings beyond `MOST`.
    """

    record: str
    run_id: str | None
    found: tuple[Finding, ...]
    left_out: int

    @classmethod
    def of(cls, record: str, run_id: str | None, found: Iterable[Finding]) -> Findings:
        """Collect findings, each once."""
        distinct = tuple(dict.fromkeys(found))
        errors = [each for each in distinct if each.severity == "error"]
        others = [each for each in distinct if each.severity != "error"]
        kept = (*errors, *others)[:MOST]  # what counts is never left out for what does not
        return cls(one_line(record), run_id, kept, len(distinct) - len(kept))

    @property
    def errors(self) -> int:
        """Number of errors that are listed."""
        return sum(each.severity == "error" for each in self.found)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "record": self.record,
            "run_id": self.run_id,
            "valid": not self.errors,
            "errors": self.errors,
            "left_out": self.left_out,
            "findings": [asdict(each) for each in self.found],
        }

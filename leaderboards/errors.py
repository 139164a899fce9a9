"""The errors of records: one line each, with the exit code a command line gives back."""

from __future__ import annotations


def one_line(text: str, limit: int = 600) -> str:
    """Return `text` as one printable line of at most `limit` characters.

    Messages quote records that strangers wrote, so line breaks and terminal escapes go.
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


class RecordError(ValueError):
    """A record cannot be written, read or trusted; the message is always one line."""

    exit_code = 6

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ContradictionError(RecordError):
    """A sample is both certified and broken: a bug of ours, never averaged away.

    Args:
        sample_ids: All samples concerned, ascending.
        evidence: Where both artefacts of each were written, if anywhere.

    Attributes:
        sample_ids: As given.
    """

    exit_code = 7

    def __init__(self, sample_ids: tuple[int, ...], evidence: str | None = None) -> None:
        shown = ", ".join(str(i) for i in sample_ids[:20])
        more = f" and {len(sample_ids) - 20} more" if len(sample_ids) > 20 else ""
        super().__init__(
            f"both certified and broken: sample {shown}{more}; one of the two is wrong, "
            f"so this run has no result (keep its folder: the evidence is {evidence or 'in it'})"
        )
        self.sample_ids = sample_ids


class NotComparableError(RecordError):
    """Two runs, or two files of timings, say nothing about each other."""

    exit_code = 2

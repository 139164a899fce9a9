"""Errors a user can act on: each is one line, and each kind has its own exit code.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a defect of ours (a traceback is shown); of a gate: something got worse (none is shown) |
| 2 | wrong usage of the command line; of a gate: what it was given cannot be compared |
| 3 | the model cannot be loaded, or cannot be evaluated |
| 4 | the data cannot be read, or do not fit the model |
| 5 | the threat model or the attack's settings are not legal |
| 6 | the run's record cannot be written or read |
| 7 | a check failed: a stored adversarial example does not hold, or a sample is both \
certified and broken |
"""

from __future__ import annotations


class HarnessError(Exception):
    """Base of all errors that are shown to users as one line."""

    exit_code = 1


class UsageError(HarnessError):
    """The command line or the call asks for something that does not exist."""

    exit_code = 2


class ModelError(HarnessError):
    """The model cannot be loaded, or its outputs cannot be evaluated."""

    exit_code = 3


class DataError(HarnessError):
    """The data cannot be read, or do not fit the model or their own box."""

    exit_code = 4


class RunError(HarnessError):
    """The record of a run cannot be written or read."""

    exit_code = 6


class CheckFailedError(HarnessError):
    """A stored result does not hold when it is checked again."""

    exit_code = 7


def did_you_mean(name: str, known: list[str]) -> str:
    """Return a hint ("; did you mean 'x'?", or the list of known names) for an unknown name."""
    import difflib

    folded = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{folded[close[0]]}'?"
    return f"known: {', '.join(known)}"


def one_line(text: object, limit: int = 200) -> str:
    """Return `text` on one line: white space collapsed, unprintables escaped, cut at `limit`."""
    joined = " ".join(str(text).split())
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)
    return printable if len(printable) <= limit else printable[: limit - 3] + "..."

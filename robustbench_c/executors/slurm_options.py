"""Options of `sbatch`, as given by `--slurm KEY=VALUE`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from robustbench_c.errors import UsageError
from robustbench_c.executors.local import THREADS

MINUTES = 60
"""Time limit of a job where none is given. One that reaches it goes back into the queue."""
_KEY = re.compile(r"[a-z][a-z-]{1,40}")
_TIME = re.compile(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", re.ASCII)
_OURS = {
    **dict.fromkeys(("array", "wrap", "wait", "test-only", "parsable"), "is not for workers"),
    **dict.fromkeys(("output", "error", "input", "open-mode"), "would part us from their logs"),
    **dict.fromkeys(("signal", "requeue", "no-requeue"), "is what brings lost ones back"),
    **dict.fromkeys(
        ("nodes", "ntasks", "ntasks-per-node", "ntasks-per-core", "ntasks-per-gpu"),
        "is 1: each worker is a job of its own (--workers says how many)",
    ),
    **dict.fromkeys(("chdir", "export", "export-file"), "is as it is here"),
}


def slurm_options(texts: Iterable[str]) -> dict[str, str | None]:
    """Read options of `sbatch` by their long names.

    Args:
        texts: `KEY=VALUE`, or `KEY` alone for a switch; the dashes before it may be left out.

    Returns:
        Value by name, None of a switch.

    Raises:
        UsageError: One is malformed, given twice, or not to be set.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        key, equals, value = text.strip().removeprefix("--").partition("=")
        if not _KEY.fullmatch(key) or (equals and not value) or not value.isprintable():
            raise UsageError(
                f"--slurm {ascii(text)[:100]} is not KEY=VALUE with an option of sbatch by its "
                "long name, such as partition=gpu"
            )
        if key in _OURS:
            raise UsageError(f"--slurm {key}: that {_OURS[key]}")
        if key in found:
            raise UsageError(f"--slurm {key} is given twice")
        found[key] = value if equals else None
    minutes_of(found)
    cpus_of(found)
    return found


def minutes_of(options: Mapping[str, str | None]) -> int:
    """Return the time limit of a job, in minutes rounded up.

    Raises:
        UsageError: It is none that sbatch knows: minutes, H:M:S, D-H:M ...
    """
    text = options.get("time", str(MINUTES))
    parts = _TIME.fullmatch(text or "")
    if parts is None:
        raise UsageError(f"--slurm time={text} is neither minutes nor H:M:S nor D-H:M:S")
    days, *rest = (int(part) if part is not None else None for part in parts.groups())
    first, second, third = rest
    if days is not None:
        seconds = ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    elif third is not None:
        seconds = ((first or 0) * 60 + (second or 0)) * 60 + third
    else:
        seconds = (first or 0) * 60 + (second or 0)
    if seconds == 0:
        raise UsageError(f"--slurm time={text} is no time")
    return -(-seconds // 60)


def cpus_of(options: Mapping[str, str | None]) -> int:
    """Return the CPUs of a job: as many as threads, where nothing else is said.

    Raises:
        UsageError: They are no number.
    """
    threads = os.environ.get(THREADS, "")
    text = options.get("cpus-per-task", threads if _is_number(threads) else "1") or ""
    if not _is_number(text):
        raise UsageError(f"--slurm cpus-per-task={text} is not a number from 1 up")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0

"""How much memory this process holds, and how much it may."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

from robustbench_c.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", re.ASCII | re.IGNORECASE)
_MOST = 1 << 60


def peak_memory() -> int:
    """Most bytes of main memory that this process has held; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    # of a child it starts with its parent's, hence not first
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def parse_size(text: str, option: str) -> int:
    """Read an amount of memory: bytes, or with K, M, G or T (of 1000; KiB to TiB: of 1024).

    Raises:
        UsageError: It is none, or less than a byte.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is not None:
        number, letter, binary = found.groups()
        power = " KMGT".index(letter.upper() or " ")
        size = float(number) * (1024 if binary else 1000) ** power
        if 1 <= size <= _MOST and not (binary and not letter):
            return int(size)
    raise UsageError(f"{option} '{text[:100]}' is no amount of memory such as 2G, 800M or 1.5GiB")

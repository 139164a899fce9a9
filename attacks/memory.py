"""How much memory is in use, and how much was at most: of the process, or of a CUDA device.

On Linux the peak can be set back, so that of one piece of work can be measured; elsewhere it is
that of the process since its start, which is more.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_use(device: torch.device) -> int:
    """Bytes in use: resident ones of the process, or allocated ones of a CUDA device."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _of_process("VmRSS")


def peak(device: torch.device) -> int:
    """Most bytes in use since `reset_peak`, or since the start where that does nothing."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _of_process("VmHWM")


def reset_peak(device: torch.device) -> None:
    """Begin to measure the peak afresh, where the system can (Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # no Linux, or one that does not allow it
        _RESET.write_text("5")


def _of_process(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        import resource  # not on Windows, where nothing tells

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most

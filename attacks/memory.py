"""Memory: how much is in use, how much may be, and what to do where there is no more.

Work is cut into chunks of a usual size. Where there is less room, all chunks shrink by one share
(`room`), which `halving` halves whenever memory runs out: the one place that knows how that looks.

On Linux the peak can be set back, so that of one piece of work can be measured; elsewhere it is
that of the process since its start, which is more.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from attacks.errors import TooLittleMemoryError

T = TypeVar("T")

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LEAST = 2.0**-12
"""Share of the usual room at which a chunk is one sample, or one row of one."""
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_cpu")
"""What torch's RuntimeErrors say of it: of the CPU, and of libraries of CUDA."""


@dataclass
class _Room:
    share: float = 1.0


_ROOM: ContextVar[_Room | None] = ContextVar("room", default=None)
_LISTENERS: ContextVar[tuple[Callable[[str], None], ...]] = ContextVar("listeners", default=())


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


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def room(usual: int) -> int:
    """What a chunk may take of memory (or hold of samples), where it usually takes so much."""
    here = _ROOM.get()
    return usual if here is None else max(1, int(usual * here.share))


def is_narrow() -> bool:
    """Whether chunks are smaller than usual: the last bits of what is made in them can differ."""
    here = _ROOM.get()
    return here is not None and here.share < 1


@contextmanager
def within(share: float) -> Iterator[None]:
    """Make chunks of a share of their usual size, and smaller ones once memory runs out."""
    token = _ROOM.set(_Room(share))
    try:
        yield
    finally:
        _ROOM.reset(token)


@contextmanager
def telling(listener: Callable[[str], None]) -> Iterator[None]:
    """Call `listener` with a line whenever memory runs out and work goes on in smaller chunks."""
    token = _LISTENERS.set((*_LISTENERS.get(), listener))
    try:
        yield
    finally:
        _LISTENERS.reset(token)


def tell(text: str) -> None:
    """Call the listeners."""
    for listener in _LISTENERS.get():
        listener(text)


def halving(work: Callable[[], T], what: str, device: torch.device) -> T:
    """Do some work, in chunks of half the size as often as memory runs out.

    The smaller chunks stay, as far as `within` reaches.

    Args:
        work: Asks `room` for the size of its chunks; may be called again.
        what: Names it for the user.
        device: Where it is done.

    Raises:
        TooLittleMemoryError: Not even the smallest chunks fit.
    """
    here = _ROOM.get()
    if here is None:
        with within(1.0):
            return halving(work, what, device)
    while True:
        try:
            return work()
        except Exception as error:
            if not exhausted(error):
                raise
        if here.share <= _LEAST:
            raise too_little(what, device)
        here.share /= 2
        free(device)
        tell(f"out of memory in {what}: going on in chunks of {_fraction(here.share)} of the usual")


def too_little(what: str, device: torch.device, needed: int | None = None) -> TooLittleMemoryError:
    """The error that not even one sample fits; `needed` bytes would do."""
    held = f"{in_use(device) >> 20} MiB are in use before it"
    told = held if needed is None else f"it takes {-(-needed >> 20)} MiB"
    return TooLittleMemoryError(f"too little memory for one sample in {what}: {told}")


def free(device: torch.device) -> None:
    """Give back what is held for later, as far as the system can (CUDA, glibc)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _fraction(share: float) -> str:
    return f"1/{round(1 / share)}"


def _of_process(name: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        import resource  # not on Windows, where nothing tells

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most

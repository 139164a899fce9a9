"""What a parser may do with an input: read it, or refuse it by an error of this project, soon."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECONDS = 2.0
"""Of processor time, for one input."""
_MEMORY = 3 << 30
"""Bytes of address space beyond what the process has."""


class Hangs(BaseException):
    """The parser took too long; no `except Exception` stops it."""


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Refuse more memory than any small file may take."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def guarded() -> Iterator[None]:
    """Let errors of this project pass, and nothing else.

    Raises:
        AssertionError: Of another exception, which is its cause.
    """

    def stop(*_: Any) -> None:
        raise Hangs(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    except Hangs as error:
        raise AssertionError(str(error)) from error
    except Exception as error:
        if not isinstance(getattr(error, "exit_code", None), int):
            raise AssertionError(f"{type(error).__name__}: {error}"[:500]) from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)

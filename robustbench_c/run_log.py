"""Writes a worker's log of a run (`leaderboards.worklog`), so that others can see it at work.

What a worker does between `with logged(store):` and the block's end goes to the file that the block
opened, wherever in the call tree it happens. A log that cannot be written stops nothing.

Light to import: no torch.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboards.errors import RecordError, one_line
from leaderboards.files import refuse_escape
from leaderboards.holders import AGE, process
from leaderboards.worklog import FOLDER, SUFFIX, Event
from robustbench_c import __version__
from robustbench_c.memory import peak_memory

if TYPE_CHECKING:
    import torch

    from leaderboards.store import RunStore


class RunLog:
    """The log of one worker. Its file is made with the first event after the start.

    A command that finds the whole run there leaves none.

    Attributes:
        path: The file.
    """

    def __init__(self, run: Path, start: dict[str, Any]) -> None:
        me = process(os.getpid())
        now = datetime.now(UTC)
        host = re.sub(r"[^A-Za-z0-9.-]", "_", str(me["host"]))[:60]
        begun = f"{now:%Y%m%dT%H%M%S%f}"
        name = f"{begun}-{host}-{me['pid']}-{secrets.token_hex(4)}{SUFFIX}"
        self.path = run / FOLDER / name
        self._run, self._began, self._torn = run, time.monotonic(), False
        self._touched = self._began
        self._who = {"host": me["host"], "pid": me["pid"]}
        start |= {key: me[key] for key in ("boot", "namespace")} | {"began": me["started"]}
        self._start: dict[str, Any] | None = self._event("started", start)

    def write(self, event: Event, **told: Any) -> None:
        """Add an event."""
        lines = [self._event(event, told)]
        if self._start is not None:
            lines, self._start = [self._start, *lines], None
        for line in lines:
            self._append((json.dumps(line) + "\n").encode())

    def end(self, error: BaseException | None) -> None:
        """Add how it ended, unless there was nothing to do."""
        if self._start is not None and error is None:
            return
        how = "complete" if error is None else "failed"
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            how = "stopped"
        text = None if error is None else f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - self._began
        self.write("ended", how=how, text=text, seconds=seconds, **_memory())

    def touch(self) -> None:
        """Say that the worker is alive, by the file's time, now and then."""
        if time.monotonic() - self._touched > AGE / 4:
            self._touched = time.monotonic()
            with suppress(OSError):
                os.utime(self.path)

    def _event(self, event: Event, told: Mapping[str, Any]) -> dict[str, Any]:
        known = {k: one_line(v) if isinstance(v, str) else v for k, v in told.items()}
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"time": now, **self._who, "event": event} | {
            k: v for k, v in known.items() if v is not None
        }

    def _append(self, line: bytes) -> None:
        with suppress(OSError, RecordError):
            refuse_escape(self._run, self.path)
            self.path.parent.mkdir(exist_ok=True)
            # after a line that was cut short (a full disk), the next one begins anew
            line = b"\n" + line if self._torn else line
            self._torn = True
            handle = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
            try:
                self._torn = os.write(handle, line) < len(line)
            finally:
                os.close(handle)


_CURRENT: ContextVar[RunLog | None] = ContextVar("run_log", default=None)


@contextmanager
def logged(store: RunStore, device: torch.device, resumed: bool) -> Iterator[RunLog]:
    """Write down what this worker does on a run while the block runs, and how it ends.

    Args:
        store: The run.
        device: Where this worker computes.
        resumed: Whether the run was on disk before.
    """
    manifest = store.manifest
    log = RunLog(
        store.folder,
        {
            "tool_version": __version__,
            "versions": manifest.versions,
            "device": f"{device} ({manifest.device_name})",
            "cpu": _cpu(),
            "threads": manifest.threads,
            "tiles": manifest.tiles,
            "command": shlex.join(sys.argv),
            "resumed": resumed,
        },
    )
    token = _CURRENT.set(log)
    try:
        yield log
    except BaseException as error:
        log.end(error)
        raise
    else:
        log.end(None)
    finally:
        _CURRENT.reset(token)


def step_begun(step: str, samples: int, shards: int, there: tuple[int, int]) -> None:
    """Write down that this worker comes to a step.

    Args:
        step: Its name.
        samples: All that it has to do.
        shards: As many.
        there: Samples and shards of these that are there.
    """
    _write("step", step=step, samples=samples, shards=shards, samples_there=there[0],
           shards_there=there[1])  # fmt: skip


def shard_done(step: str, shard: str, samples: int, settled: int, seconds: float) -> None:
    """Write down that this worker has written a shard."""
    _write("shard", step=step, shard=shard, samples=samples, settled=settled,
           seconds=seconds, **_memory())  # fmt: skip


def waiting(step: str, shards: int) -> None:
    """Write down that others have the `shards` that are left of a step."""
    _write("waiting", step=step, shards=shards)


def still_waiting() -> None:
    """Say that the worker is alive."""
    if (log := _CURRENT.get()) is not None:
        log.touch()


def notice(text: str) -> None:
    """Write down what whoever watches the run should know."""
    _write("notice", text=text)


def took_over(step: str, shard: str, before: Mapping[str, Any]) -> None:
    """Write down that this worker took the lease of one that is lost."""
    owner = f"{before.get('host', '?')} {before.get('pid', '?')}"
    _write("takeover", step=step, shard=shard, owner=owner)


def _write(event: Event, **told: Any) -> None:
    if (log := _CURRENT.get()) is not None:
        log.write(event, **told)


def _cpu() -> str | None:
    """Model of this machine's CPU, where it says so."""
    with suppress(OSError):
        found = re.search(r"^model name\s*:(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return found[1].strip() if found else None
    return None


def _memory() -> dict[str, int]:
    found = {"peak_memory": peak_memory()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["device_memory"] = torch.cuda.max_memory_allocated()
    return found

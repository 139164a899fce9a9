"""Who works on which shard: leases in the run's folder, for workers that share nothing else.

RUN/leases/<step>/<shard>.lease is made atomically, touched while its owner lives, and removed when
the shard is there. One that nobody touches for long, while somebody looks on, is taken over; at
once where its owner is a process of this machine that has ended. No two clocks are compared: those
of machines and of their file systems may be hours apart. Leases save work, they guard nothing: two
workers on one shard write the same rows but for the time, and the record counts them once.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leaderboards.errors import RecordError
from leaderboards.files import refuse_escape
from leaderboards.holders import (
    AGE,
    FOLDER,
    MAX_LEASE_BYTES,
    SUFFIX,
    has_ended,
    owner_of,
    process,
)
from robustbench_c import run_log


class Leases:
    """The leases of one worker.

    Attributes:
        folder: Where they lie.
        age: Seconds after which one that this worker has not seen touched is free.
        start: Which part of the work this worker begins with: 0 for the first shard, 0.5 for the
            one in the middle. Others are turned to when they are done.
        check: Called before anything is claimed; raises where this worker may not go on.
    """

    def __init__(
        self,
        run: Path,
        age: float = AGE,
        start: float = 0.0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.age, self.start, self.check = run / FOLDER, age, start, check
        self._run, self._me = run, {**process(os.getpid()), "token": secrets.token_hex(8)}
        self._seen: dict[Path, tuple[tuple[bytes, int], float]] = {}

    @contextmanager
    def claim(self, step: str, shard: str) -> Iterator[bool]:
        """Try to be the only worker on a shard while the block runs; yields whether it is.

        Args:
            step: Name of the step.
            shard: Name of the shard's file, or of whatever is made once.

        Raises:
            RecordError: The folder cannot be written.
        """
        self.check()
        path = self.folder / step / f"{shard}{SUFFIX}"
        if not self._take(path):
            yield False
            return
        done = threading.Event()
        beat = threading.Thread(target=_touch, args=(path, self.age / 4, done), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            done.set()
            beat.join()
            self._release(path)

    def clear(self) -> None:
        """Remove the folders of leases that are empty; those of others stay."""
        with suppress(OSError):
            for folder in (*self.folder.iterdir(), self.folder):
                folder.rmdir()

    def remove(self) -> None:
        """Remove all that is left of anybody's leases: there is nothing more to do."""
        shutil.rmtree(self.folder, ignore_errors=True)  # follows no link

    def _take(self, path: Path) -> bool:
        before = None
        for _ in range(10):
            refuse_escape(self._run, path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if (old := _content(path)) is None:  # it has just been given back
                    continue
                if not self._is_free(path, old):
                    return False
                _put_aside(path, old)
                before = owner_of(old)
                continue
            except FileNotFoundError:  # another worker has just cleared the folder
                continue
            except OSError as error:
                raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump({**self._me, "since": time.time()}, file)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
            if before is not None:
                run_log.took_over(path.parent.name, path.name.removesuffix(SUFFIX), before)
            return True
        return False

    def _is_free(self, path: Path, content: bytes) -> bool:
        """Whether the owner of a lease has ended, or has not touched it for long."""
        if (ended := has_ended(owner_of(content))) is not None:
            return ended
        try:
            now = (content, path.stat().st_mtime_ns)
        except OSError:
            return False
        seen, since = self._seen.get(path, (None, 0.0))
        if seen == now:
            return time.monotonic() - since > self.age
        self._seen[path] = (now, time.monotonic())
        return False

    def _release(self, path: Path) -> None:
        with suppress(OSError):
            if owner_of(_content(path) or b"").get("token") == self._me["token"]:
                path.unlink()


def _content(path: Path) -> bytes | None:
    """What a lease says; None where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_LEASE_BYTES)
    except OSError:
        return None


def _put_aside(path: Path, old: bytes) -> None:
    """Remove a lease that is free: of several that try, the renaming lets one alone through.

    One that another worker has taken over in between is put back.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with suppress(OSError):
        path.rename(aside)
        if _content(aside) != old:
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink()


def _touch(path: Path, pause: float, done: threading.Event) -> None:
    while not done.wait(pause):
        with suppress(OSError):
            os.utime(path)

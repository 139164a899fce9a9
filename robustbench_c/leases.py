"""Who works on which shard: leases in the run's folder, for workers that share nothing else.

RUN/leases/<step>/<shard>.lease is made atomically, touched while its owner lives, and removed when
the shard is there. One that nobody touches for long, while somebody looks on, is taken over, be it
a stopped process's or no file at all; at once where its owner is a process of this machine that has
ended. No two clocks are compared: those of machines and of their file systems may be hours apart.
Leases save work, they guard nothing: two workers on one shard write the same rows but for the time,
and the record counts them once. Who must be alone asks `holds` before it writes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leaderboards.errors import RecordError
from leaderboards.files import read_regular, refuse_escape
from leaderboards.holders import (
    AGE,
    FOLDER,
    MAX_LEASE_BYTES,
    SUFFIX,
    file_time,
    has_ended,
    owner_of,
    process,
)
from robustbench_c import run_log

_Look = tuple[bytes, int]
"""What a lease says, and when it was touched, ns."""


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
        self._seen: dict[Path, tuple[_Look, float]] = {}

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
        path = self._path(step, shard)
        if not self._take(path):
            yield False
            return
        done = threading.Event()
        beat = threading.Thread(target=self._touch, args=(path, done), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            done.set()
            beat.join()
            self._release(path)

    def holds(self, step: str, shard: str) -> bool:
        """Whether a lease is this worker's: one that slept for long may have lost it."""
        return self._is_mine(self._path(step, shard))

    def outlast(self, step: str, shard: str, tell: Callable[[], None]) -> None:
        """Wait while nobody knows whether the owner of a lease lives.

        Returns when `claim` can tell: the lease is gone, touched, or free.

        Args:
            step: Name of the step.
            shard: As in `claim`.
            tell: Called once, if there is anything to wait for.
        """
        path = self._path(step, shard)
        first = now = _look(path)
        told = False
        while now is not None and now == first and not self._is_free(path, now):
            if self._beats(now):
                return
            if not told:
                tell()
                told = True
            time.sleep(min(1.0, self.age / 20))
            now = _look(path)

    def clear(self) -> None:
        """Remove the folders of leases that are empty; those of others stay."""
        with suppress(OSError):
            for folder in (*self.folder.iterdir(), self.folder):
                folder.rmdir()

    def remove(self) -> None:
        """Remove all that is left of anybody's leases: there is nothing more to do."""
        shutil.rmtree(self.folder, ignore_errors=True)  # follows no link

    def _path(self, step: str, shard: str) -> Path:
        return self.folder / step / f"{shard}{SUFFIX}"

    def _take(self, path: Path) -> bool:
        before = None
        for _ in range(10):
            refuse_escape(self._run, path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if (old := _look(path)) is None:  # it has just been given back
                    continue
                if not self._is_free(path, old):
                    return False
                _put_aside(path, old)
                before = owner_of(old[0])
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

    def _is_free(self, path: Path, now: _Look) -> bool:
        """Whether the owner of a lease has ended, or has not touched it for long."""
        if has_ended(owner_of(now[0])):
            return True
        seen, since = self._seen.get(path, (None, 0.0))
        if seen == now:
            return time.monotonic() - since > self.age
        self._seen[path] = (now, time.monotonic())
        return False

    def _beats(self, now: _Look) -> bool:
        """Whether a lease is of a process of this machine that lives, and was touched of late."""
        if has_ended(owner_of(now[0])) is not False:
            return False
        return abs(file_time(self._run) - now[1] / 1e9) <= self.age

    def _is_mine(self, path: Path) -> bool:
        now = _look(path)
        return now is not None and owner_of(now[0]).get("token") == self._me["token"]

    def _touch(self, path: Path, done: threading.Event) -> None:
        while not done.wait(self.age / 4):
            with suppress(OSError):
                if self._is_mine(path):
                    os.utime(path)

    def _release(self, path: Path) -> None:
        with suppress(OSError):
            if self._is_mine(path):
                path.unlink()


def _look(path: Path) -> _Look | None:
    """Look at a lease; None where there is none. What is no file, or unreadable, says nothing."""
    content = b""
    with suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with suppress(RecordError):
                content = read_regular(path, MAX_LEASE_BYTES)
        # after it was opened: only then do network file systems ask for the time anew
        return content, path.lstat().st_mtime_ns
    return None


def _put_aside(path: Path, old: _Look) -> None:
    """Remove a lease that is free: of several that try, the renaming lets one alone through.

    One that another worker has taken over or touched in between is put back.

    Raises:
        RecordError: It cannot be removed.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.rename(aside)
    except FileNotFoundError:  # another was faster
        return
    except OSError as error:
        raise RecordError(f"cannot remove {path}: {error.strerror or error}") from error
    with suppress(OSError):
        if _look(aside) != old:
            with suppress(OSError):
                os.link(aside, path)
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink()

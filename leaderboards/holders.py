"""Who works on what in a folder that workers share: its leases, read without touching them.

FOLDER/leases/<step>/<shard>.lease holds the worker's host, pid and what tells its process from
others; the time of its last change is the last heartbeat. All of it may be a stranger's.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboards.errors import RecordError, one_line
from leaderboards.files import refuse_escape

FOLDER, SUFFIX = "leases", ".lease"
AGE = 60.0
"""Seconds without a heartbeat after which a worker counts as lost."""
MAX_LEASE_BYTES = 4096
_MOST = 10_000


@dataclass(frozen=True)
class Holder:
    """A worker that holds a lease.

    Attributes:
        step: Name of the step, or of the kind of work.
        shard: Name of the shard, or of whatever is made once.
        host: Its machine, as that calls itself; empty where the lease does not say.
        pid: Number of its process there; 0 likewise.
        since: When it took the lease, seconds of its own clock since 1970; None likewise.
        heartbeat: Seconds since its last heartbeat, by the file system's clock.
        lost: Whether its process has ended (known of this machine's alone) or was silent for
            longer than `AGE`.
    """

    step: str
    shard: str
    host: str
    pid: int
    since: float | None
    heartbeat: float
    lost: bool


def holders(folder: Path) -> list[Holder]:
    """Return the workers that hold a lease in a folder, by step and shard; none if there is none.

    Raises:
        RecordError: The leases lie outside of the folder, or cannot be read.
    """
    found, now = [], None
    for path in _leases(folder):
        with suppress(OSError):  # given back meanwhile
            with path.open("rb") as file:
                owner = owner_of(file.read(MAX_LEASE_BYTES))
            changed = path.stat().st_mtime
            now = file_time(folder) if now is None else now
            silent = max(0.0, now - changed)
            ended = has_ended(owner)
            pid, since = owner.get("pid"), owner.get("since")
            found.append(
                Holder(
                    step=one_line(path.parent.name, limit=100),
                    shard=one_line(path.name.removesuffix(SUFFIX), limit=200),
                    host=one_line(str(owner.get("host", "")), limit=100),
                    pid=pid if isinstance(pid, int) and 0 < pid < 2**31 else 0,
                    since=since if isinstance(since, float) and 0 < since < 2**33 else None,
                    heartbeat=silent,
                    lost=silent > AGE if ended is None else ended,
                )
            )
    return found


def count_holders(folder: Path) -> int:
    """Return how many workers hold a lease and are not long silent; opens no file."""
    beats = []
    with suppress(OSError, RecordError):
        for path in _leases(folder):
            with suppress(OSError):
                beats.append(path.stat().st_mtime)
    return sum(max(beats) - beat <= AGE for beat in beats)


def _leases(folder: Path) -> Iterator[Path]:
    leases, seen = folder / FOLDER, 0
    try:
        refuse_escape(folder, leases)
        for step in sorted(leases.iterdir()) if leases.is_dir() else ():
            with suppress(FileNotFoundError, NotADirectoryError):  # cleared meanwhile
                refuse_escape(folder, step)
                for path in sorted(step.iterdir()):
                    if path.name.endswith(SUFFIX) and not path.is_symlink() and path.is_file():
                        seen += 1
                        if seen > _MOST:
                            raise RecordError(f"{leases} has more than {_MOST} leases")
                        yield path
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordError(f"cannot read {leases}: {error.strerror or error}") from error


def owner_of(content: bytes) -> Mapping[str, Any]:
    """Return what a lease says of its owner; nothing if it is no JSON object."""
    try:
        owner = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def has_ended(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process of `process` has ended; None if this one cannot see it."""
    pid, boot = owner.get("pid"), owner.get("boot")
    if not isinstance(pid, int) or not 0 < pid < 2**31 or not boot:
        return None
    here = process(pid)
    if (owner.get("host"), boot) != (here["host"], here["boot"]):
        return None
    # of containers that share a name and a machine, each counts its processes for itself
    if owner.get("namespace") not in (None, here["namespace"]):
        return None
    return here["started"] != owner.get("started")


def process(pid: int) -> dict[str, str | int | None]:
    """What tells a process from every other: machine, its boot, number, and start (None: ended).

    Its number is one of the pid namespace of this process.
    """
    boot = started = namespace = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    with suppress(OSError, IndexError):
        # after the name, which may hold spaces: the state, and 20 fields on the time it began
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        started = None if state[0] == "Z" else state[19]
    host = socket.gethostname()
    return {"host": host, "boot": boot, "namespace": namespace, "pid": pid, "started": started}


def file_time(folder: Path) -> float:
    """The time of a folder's file system: the clocks of machines that share it can differ.

    Of this machine where nothing can be written.
    """
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp") as f:
        return os.fstat(f.fileno()).st_mtime
    return time.time()

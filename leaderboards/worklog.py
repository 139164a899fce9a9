"""The log of a run: what each worker did when, one file for each, one JSON object a line.

RUN/log/<begun>-<host>-<pid>-<random>.jsonl

One file for each worker, since appends of several machines to one file are not atomic on network
file systems. It is for people who watch a run: no identity, verdict or check depends on it, and
whoever reads it skips what is cut short or makes no sense.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from leaderboards.errors import RecordError
from leaderboards.files import list_folder, read_bytes
from leaderboards.manifest import Count

FOLDER, SUFFIX = "log", ".jsonl"
MOST_LOGS = 1000
"""Files that are read: the latest."""
MAX_LOG_BYTES = 8 << 20
MAX_BYTES = 64 << 20
"""Of all files that are read."""
MAX_LINE = 4000

Event = Literal["started", "step", "shard", "waiting", "notice", "takeover", "ended"]
How = Literal["complete", "stopped", "failed"]
Text = Annotated[str, StringConstraints(max_length=MAX_LINE)]
_Seconds = Annotated[float, Field(ge=0)]


class Line(BaseModel):
    """One event; what it has no use for is null."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    time: AwareDatetime
    """When it was written, by the worker's clock, UTC."""
    host: Text
    """The worker's machine, as that calls itself."""
    pid: Annotated[int, Field(ge=0, le=2**31)]
    """Number of its process there."""
    event: Event
    """What happened: `started`, `step` (begun), `shard` (done), `waiting` (others have all that is
    left of the step), `notice`, `takeover` (of a lost worker's lease), `ended`."""
    step: Text | None = None
    """Name of the step."""
    shard: Text | None = None
    """File of the shard, or name of what is made once."""
    samples: Count | None = None
    """Of a step: all that it has to do; of a shard: its own."""
    shards: Count | None = None
    """Of a step: how many there are; of waiting: how many are left."""
    samples_there: Count | None = None
    """Of a step: samples that had a row when this worker came to it."""
    shards_there: Count | None = None
    """Of a step: shards that were there then."""
    settled: Count | None = None
    """Of a shard: samples it settled."""
    seconds: _Seconds | None = None
    """Of a shard: time it took; at the end: time since the worker started."""
    peak_memory: Count | None = None
    """Most bytes of main memory that the process has held so far."""
    device_memory: Count | None = None
    """Most bytes of the device's memory likewise, on CUDA."""
    text: Text | None = None
    """Of a notice: what it says; at the end: the error, or what stopped it."""
    how: How | None = None
    """How the worker ended: `complete` (all was there), `stopped` or `failed`."""
    owner: Text | None = None
    """Of a takeover: host and pid of the worker that was lost."""
    tool_version: Text | None = None
    """Of the start: version of robustbench-c."""
    command: Text | None = None
    """Of the start: the command line."""
    resumed: bool | None = None
    """Of the start: whether the run was on disk before."""
    device: Text | None = None
    """Of the start: where it runs, with the device's name."""
    cpu: Text | None = None
    """Of the start: model of the CPU; results of another can differ in rounding."""
    threads: Count | None = None
    """Of the start: CPU threads."""
    tiles: tuple[Count, ...] | None = None
    """Of the start: sizes of a pass."""
    versions: dict[str, Text] | None = None
    """Of the start: versions of the libraries."""
    boot: Text | None = None
    """Of the start: the machine's boot, which with `began` tells the process from all others."""
    namespace: Text | None = None
    """Of the start: the pid namespace in which `pid` is its number."""
    began: Text | None = None
    """Of the start: when the process began, in ticks since the boot."""


@dataclass(frozen=True)
class WorkerLog:
    """What one worker wrote.

    Attributes:
        name: Name of the file.
        lines: Its events, in their order; at least one.
        skipped: Lines that were cut short or make no sense.
        changed: When the file changed last, seconds since 1970 by the file system's clock.
    """

    name: str
    lines: tuple[Line, ...]
    skipped: int = 0
    changed: float = 0.0

    @property
    def last(self) -> Line:
        """The latest event."""
        return self.lines[-1]


@dataclass(frozen=True)
class Logs:
    """The logs of a run, oldest first.

    Attributes:
        workers: One for each worker.
        problems: Why some file was not read, one line each.
    """

    workers: tuple[WorkerLog, ...] = ()
    problems: tuple[str, ...] = field(default=())


def read_logs(folder: Path) -> Logs:
    """Return what the workers of a run wrote down; nothing where there is no log.

    A file that cannot be read hides no other: it is named in `problems`.
    """
    try:
        paths = [p for p in list_folder(folder, folder / FOLDER) if p.name.endswith(SUFFIX)]
    except RecordError as error:
        return Logs(problems=(str(error),))
    problems, workers, room = [], [], MAX_BYTES
    if len(paths) > MOST_LOGS:
        problems.append(f"{folder / FOLDER}: only the latest {MOST_LOGS} files were looked at")
    for path in reversed(paths[-MOST_LOGS:]):
        try:
            data = read_bytes(folder, path, min(MAX_LOG_BYTES, room))
            changed = path.stat().st_mtime
        except (RecordError, OSError) as error:
            problems.append(str(RecordError(str(error))))
            continue
        room -= len(data)
        lines, skipped = parse_lines(data)
        if lines:
            workers.append(WorkerLog(path.name, lines, skipped, changed))
    return Logs(tuple(reversed(workers)), tuple(problems))


def parse_lines(data: bytes) -> tuple[tuple[Line, ...], int]:
    """Return the events of a log, and how many lines are none."""
    found, skipped = [], 0
    for text in data.split(b"\n"):
        if not text:
            continue
        try:
            if len(text) > 2 * MAX_LINE:
                raise RecordError("a line that no worker writes")
            found.append(Line.model_validate_json(text))
        except (ValidationError, RecordError):
            skipped += 1
    return tuple(found), skipped

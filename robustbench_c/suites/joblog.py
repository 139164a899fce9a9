"""What became of the jobs of a folder: OUT/jobs/<id>.json each, and leases of those at work."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from leaderboards.canonical import sha256_json
from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes, list_folder, make_folder, read_bytes
from leaderboards.manifest import explain
from leaderboards.store import RunStore
from leaderboards.strict_json import check_json
from leaderboards.summary import summarise
from robustbench_c.errors import RunError
from robustbench_c.leases import Leases
from robustbench_c.suites.job import MODELS, Job

FOLDER = "jobs"
_PLAN = ".plan"
_MAX_BYTES = 1 << 20
_MAX_PLAN = 16 << 20
_Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
_Line = Annotated[str, StringConstraints(max_length=100_000)]
_Folder = Annotated[str, StringConstraints(pattern=r"^(models/)?[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class JobRecord(BaseModel):
    """What is known of a job that some worker began."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal[1] = 1
    command: _Line
    """The command line, without where results go."""
    state: Literal["begun", "done", "failed"]
    """`begun` until it ends; who is at it now is known by its lease alone."""
    files: dict[str, _Sha256] = {}
    """SHA-256 of the files it was begun with."""
    result: _Folder | None = None
    """Folder of its run or model, in the folder of the suite."""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    """Of a failed job."""
    error: _Line | None = None
    """Likewise, one line."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of the worker that ended it, this time."""
    peak_bytes: Annotated[int, Field(ge=0)] = 0
    """Peak memory of that worker so far."""
    ended: datetime | None = None
    """When it ended."""
    attempt: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    """Tells one attempt from another."""

    @model_validator(mode="after")
    def _told(self) -> Self:
        if self.state == "done" and self.result is None:
            raise ValueError("a job that is done has a result")
        return self


class _PlannedJob(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Id
    command: _Line


class _Planned(BaseModel):
    """The jobs that a worker was given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    jobs: tuple[_PlannedJob, ...]


def new_attempt() -> str:
    """Return what tells an attempt from all others."""
    return secrets.token_hex(4)


def now() -> datetime:
    """The time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


class JobLog:
    """The records of the jobs in a folder of runs.

    Attributes:
        folder: `OUT/jobs`.
        leases: Of this worker.
    """

    def __init__(self, out: Path, start: float = 0.0) -> None:
        self.folder = out / FOLDER
        self.leases = Leases(self.folder, start=start)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            RecordError: It cannot be made.
        """
        make_folder(self.folder)

    def plan(self, jobs: Sequence[Job]) -> None:
        """Write down which jobs there are, for those who look on: `planned`.

        Raises:
            RecordError: The disk is full, and so on.
        """
        told = _Planned(jobs=tuple(_PlannedJob(id=job.id, command=str(job)) for job in jobs))
        name = sha256_json([job.id for job in jobs])[:16] + _PLAN
        atomic_write_bytes(self.folder / name, told.model_dump_json(indent=1).encode() + b"\n")

    def planned(self) -> dict[str, str]:
        """Return the jobs of the suite that was begun last, by id: their command lines.

        None where no worker wrote them down, or what it wrote cannot be read.

        Raises:
            RecordError: The folder cannot be read.
        """
        paths = [p for p in list_folder(self.folder, self.folder) if p.name.endswith(_PLAN)]
        try:
            latest = max(paths, key=lambda path: path.lstat().st_mtime)
            content = read_bytes(self.folder, latest, _MAX_PLAN)
            return {job.id: job.command for job in _Planned.model_validate_json(content).jobs}
        except (ValueError, OSError):  # also of pydantic, and of records
            return {}

    def read(self, job_id: str) -> JobRecord | None:
        """Return what is known of a job; None if nobody began it.

        Raises:
            RunError: Its file is none of ours.
        """
        path = self.folder / f"{job_id}.json"
        if not path.exists():
            return None
        try:
            content = read_bytes(self.folder, path, _MAX_BYTES)
            check_json(content)
            return JobRecord.model_validate_json(content)
        except ValidationError as error:
            raise RunError(f"{path} is no record of a job: {explain(error)}; remove it") from error
        except RecordError as error:
            raise RunError(f"{path} is no record of a job: {error}; remove it") from error

    def holds(self, record: JobRecord) -> bool:
        """Whether what a job is said to have made is there, and whole.

        A record of a job is no more than a word: folders are removed, shards get lost.
        """
        if record.state != "done" or record.result is None:
            return False
        folder = self.folder.parent / record.result
        if record.result.startswith(f"{MODELS}/"):
            return any(card.with_suffix(".safetensors").exists() for card in folder.glob("*.json"))
        try:
            return summarise(RunStore.open(folder)).complete
        except RecordError:
            return False

    def write(self, job: Job, record: JobRecord) -> None:
        """Write down what became of a job.

        Raises:
            RecordError: The disk is full, and so on.
        """
        content = record.model_dump_json(indent=1).encode() + b"\n"
        atomic_write_bytes(self.folder / f"{job.id}.json", content)

    def ids(self) -> list[str]:
        """Ids of the jobs that somebody began.

        Raises:
            RecordError: The folder cannot be read.
        """
        paths = list_folder(self.folder, self.folder)
        return [p.stem for p in paths if p.suffix == ".json" and not p.name.startswith(".")]

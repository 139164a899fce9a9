"""The folder of a run: a manifest that never changes, shards that are only added.

RUN/manifest.json
RUN/shards/<step>/<lowest id>-<highest id>-<hash of the ids>.parquet
RUN/summary.json
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from leaderboards import shard
from leaderboards.cells import Cells
from leaderboards.columns import (
    check_rows,
    content_sha256,
    layout_of,
    to_frame,
    to_table,
)
from leaderboards.differences import differences
from leaderboards.errors import RecordError
from leaderboards.examples import FOLDER as EXAMPLES
from leaderboards.files import (
    atomic_create_bytes,
    atomic_write_bytes,
    is_temporary,
    list_folder,
    make_folder,
    read_bytes,
    remove_temporaries,
)
from leaderboards.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from leaderboards.sample_ids import Ids
from leaderboards.settle import verdicts_of
from leaderboards.summary import Summary, summarise
from leaderboards.verdicts import CLEAN_STEP, StepKind

MANIFEST = "manifest.json"
SUMMARY = "summary.json"
SHARDS = "shards"

_T = TypeVar("_T")


class RunStore:
    """A run on disk.

    Attributes:
        folder: The run's folder.
        manifest: Its manifest, as it was first written: a resume goes on with its tiles.
        layout: The columns of its shards: those of its protocol's subject.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Use `create` or `open` instead."""
        self.folder = folder
        self.manifest = manifest
        self.layout = layout_of(
            manifest.protocol, len(manifest.data.classes), manifest.model.draws is not None
        )
        self._identity = manifest.identity()
        self._samples = manifest.data.sample_ids
        self._kinds: dict[str, StepKind] = {CLEAN_STEP: "clean"}
        self._kinds |= {step.name: step.kind for step in manifest.protocol.steps}

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, `clean` first."""
        return tuple(self._kinds)

    def kind(self, step: str) -> StepKind:
        """Return `clean`, `attack` or `certificate`.

        Raises:
            RecordError: The protocol has no such step.
        """
        if step not in self._kinds:
            raise RecordError(f"no step '{step}' in this run; its steps: {', '.join(self.steps)}")
        return self._kinds[step]

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> RunStore:
        """Begin a run, or take up one that was begun with the same identity.

        What a crash left half-written is removed. Several workers may call this at once: the
        manifest of one of them counts.

        Args:
            folder: Made if it is not there; otherwise empty, or the folder of such a run.
            manifest: What the run is to be. Of a run that was begun already, the manifest
                on disk stays and is the one in use.

        Raises:
            RecordError: The folder holds something else, or a run that differs (the message
                names the fields), or it cannot be written.
        """
        make_folder(folder)
        remove_temporaries(folder, folder)
        if is_run(folder):
            store = cls.open(folder)
            _refuse_differences(folder, store.manifest, manifest)
            store.remove_leftovers()
            return store
        there = [path for path in list_folder(folder, folder) if not is_temporary(path)]
        if there and folder / MANIFEST not in there:
            raise RecordError(f"{folder} is neither empty nor a run; choose another folder")
        if not there and atomic_create_bytes(folder / MANIFEST, manifest.to_bytes()):
            return cls(folder, manifest)
        return cls.create(folder, manifest)  # another worker was first: its manifest counts

    @classmethod
    def open(cls, folder: Path) -> RunStore:
        """Open a run to look at it; nothing on disk is touched.

        Raises:
            RecordError: There is no run, or its manifest is not valid.
        """
        path = folder / MANIFEST
        if not is_run(folder):
            raise RecordError(f"{folder} is not a run: it has no {MANIFEST}")
        return cls(folder, parse_manifest(read_bytes(folder, path, MAX_MANIFEST_BYTES), str(path)))

    def write_shard(self, step: str, frame: pd.DataFrame, narrow: bool = False) -> Path:
        """Add the rows of a step for some samples.

        Args:
            step: `clean` or a step of the protocol.
            frame: The columns of `layout`, at least one row.
            narrow: Whether they were made in smaller pieces than usual, for want of memory, so
                that last bits can differ: the shard says so.

        Returns:
            The shard's file. If these samples were there with the same results, nothing changes.

        Raises:
            RecordError: The rows are not valid, differ from what is there for the same samples,
                or cannot be written.
        """
        kind = self.kind(step)
        table = to_table(frame, self.layout)
        if not table.num_rows:
            raise RecordError(f"a shard of step {step} without rows")
        check_rows(table, kind, len(self.manifest.data.classes), self._samples, self.layout)
        path = self._folder(step) / shard.file_name(table["sample_id"].to_numpy())
        if path.exists():
            there = self.read_shard(step, path)
            if content_sha256(there) != content_sha256(table):
                raise RecordError(f"{path} is there with other results for the same samples")
            return path
        make_folder(path.parent)
        atomic_write_bytes(path, shard.encode(table, self._identity, step, narrow))
        return path

    def read_step(self, step: str) -> pd.DataFrame:
        """Return all rows of a step, ordered by sample (types: `leaderboards.columns.to_frame`).

        Raises:
            RecordError: A shard is damaged, of another run, or contradicts another shard.
        """
        return to_frame(self.read_table(step))

    def read_table(self, step: str) -> pa.Table:
        """Return the rows of `read_step` as an Arrow table, in no particular order."""
        self.kind(step)
        tables = [self.read_shard(step, path) for path in self.shard_paths(step)]
        table = pa.concat_tables(tables) if tables else self.layout.schema.empty_table()
        narrow = sum(map(shard.narrow_rows, tables))
        return shard.with_narrow_rows(shard.without_repetitions(table, step), narrow)

    def read_steps(self) -> dict[str, pd.DataFrame]:
        """Return the rows of every step, `clean` first: `read_step`."""
        return {step: self.read_step(step) for step in self.steps}

    def cells(self, step: str) -> Cells:
        """Return the rows of `read_step` as arrays."""
        return Cells(self.read_step(step))

    def snapshot(self) -> Snapshot:
        """Return the run as it is now: each shard is read once, when it is first asked for."""
        return Snapshot(self.folder, self.manifest)

    def verdicts(self) -> pd.DataFrame:
        """Return each sample's verdict and the step that settled it: `sample_verdicts`.

        Raises:
            ContradictionError: A sample is both certified and broken.
            RecordError: A shard is not valid.
        """
        return verdicts_of({step: self.cells(step) for step in self.steps}, self._samples)

    def summary(self) -> Summary:
        """Return the summary of what the shards hold now: `summarise`. Errors as of `verdicts`."""
        return summarise(self)

    def completed_ids(self, step: str) -> Ids:
        """Return the ids, ascending, of the samples that a step has rows for."""
        return np.sort(self.read_table(step)["sample_id"].to_numpy())

    def shard_path(self, step: str, ids: Ids) -> Path:
        """Return where the shard of a step with these samples lies, or would."""
        return self._folder(step) / shard.file_name(ids)

    def shard_paths(self, step: str) -> list[Path]:
        """Return the shards of a step, by name; files that a crash left are passed over.

        Raises:
            RecordError: There is something else in the folder.
        """
        paths = [p for p in list_folder(self.folder, self._folder(step)) if not is_temporary(p)]
        for path in paths:
            if not shard.FILE_NAME.fullmatch(path.name):
                raise RecordError(f"{path} is not a shard")
        return paths

    def write_summary(self) -> Summary:
        """Rebuild `summary.json` from the shards, and return it.

        Raises:
            ContradictionError: A sample is both certified and broken; no summary is written.
            RecordError: A shard is not valid, or the file cannot be written.
        """
        summary = self.summary()
        atomic_write_bytes(self.folder / SUMMARY, summary.to_bytes())
        return summary

    def remove_leftovers(self) -> None:
        """Remove what workers that were killed have left half-written.

        Raises:
            RecordError: A folder leads out of the record, or is not writable.
        """
        own = [self.folder / part / step for part in (SHARDS, EXAMPLES) for step in self.steps]
        for folder in (self.folder, *own):
            remove_temporaries(self.folder, folder)

    def verify_bytes(self) -> list[str]:
        """Check everything that needs no model; one line for each problem, none if all is well."""
        from leaderboards.verify import verify_bytes

        return verify_bytes(self)

    def _folder(self, step: str) -> Path:
        return self.folder / SHARDS / step

    def read_shard(self, step: str, path: Path) -> pa.Table:
        """Return the rows of one shard of a step.

        Raises:
            RecordError: It is damaged, of another run, or not what its name says.
        """
        data = read_bytes(self.folder, path, shard.MAX_SHARD_BYTES)
        try:
            table = shard.decode(data, self._identity, step, self._samples.size, self.layout)
            classes = len(self.manifest.data.classes)
            check_rows(table, self.kind(step), classes, self._samples, self.layout)
            if shard.file_name(table["sample_id"].to_numpy()) != path.name:
                raise RecordError("its name does not fit the samples in it")
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from None
        return table


class Snapshot(RunStore):
    """A run as it was when it was read: what was read is kept, and is not to be changed."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Use `RunStore.snapshot` instead."""
        super().__init__(folder, manifest)
        self._kept: dict[tuple[str, str], Any] = {}

    def snapshot(self) -> Snapshot:
        """Return itself."""
        return self

    def shard_paths(self, step: str) -> list[Path]:
        """As of `RunStore`."""
        return self._once("paths", step, lambda: super(Snapshot, self).shard_paths(step))

    def read_table(self, step: str) -> pa.Table:
        """As of `RunStore`."""
        return self._once("table", step, lambda: super(Snapshot, self).read_table(step))

    def read_step(self, step: str) -> pd.DataFrame:
        """As of `RunStore`."""
        return self._once("frame", step, lambda: super(Snapshot, self).read_step(step))

    def cells(self, step: str) -> Cells:
        """As of `RunStore`."""
        return self._once("cells", step, lambda: super(Snapshot, self).cells(step))

    def verdicts(self) -> pd.DataFrame:
        """As of `RunStore`."""
        return self._once("verdicts", "", super().verdicts)

    def summary(self) -> Summary:
        """As of `RunStore`."""
        return self._once("summary", "", super().summary)

    def _once(self, what: str, step: str, read: Callable[[], _T]) -> _T:
        if (what, step) not in self._kept:
            self._kept[what, step] = read()
        found: _T = self._kept[what, step]
        return found


def is_run(folder: Path) -> bool:
    """Whether a folder holds a manifest.

    Raises:
        RecordError: The folder cannot be read.
    """
    return folder / MANIFEST in list_folder(folder, folder)


def _refuse_differences(folder: Path, there: Manifest, here: Manifest) -> None:
    if differing := differences(there, here):
        raise RecordError(
            f"{folder} holds another run and cannot be resumed: {'; '.join(differing)}"
        )

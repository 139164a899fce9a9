"""What the boards are made of: a run that was read, checked and summed up."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from leaderboards.canonical import canonical_json
from leaderboards.diagnostics import can_be_diagnosed
from leaderboards.errors import ContradictionError, RecordError
from leaderboards.files import list_folder
from leaderboards.manifest import Manifest
from leaderboards.pairs import right_by_rate
from leaderboards.store import RunStore, is_run
from leaderboards.summary import Summary
from leaderboards.verdicts import CLEAN_STEP

Right = npt.NDArray[np.bool_]
_CHUNK = 4


@dataclass(frozen=True, eq=False)
class Entry:
    """A run as boards, reports and exports see it: nothing in it is taken from summary.json.

    Attributes:
        folder: Where it lies.
        manifest: What was fixed before its first sample.
        summary: What it found, rebuilt from the shards.
        settled: Indexed by sample id, ascending: `verdict` and `settled_by` (the step), both null
            where the run is not over.
        right: By rate (`clean`, `robust`, `certified`), bool (n,): which samples count, in the
            order of their ids. Of explanations `robust` is "not bent". Rates that the protocol
            does not speak of are not there; of an incomplete run only `clean` is.
        labels_sha256: Hash of the class names and of the labels by sample id, as far as the clean
            step got.
        kept: What a reader asked for beside, made while the rows were at hand; None without.
    """

    folder: Path
    manifest: Manifest
    summary: Summary
    settled: pd.DataFrame
    right: dict[str, Right]
    labels_sha256: str
    kept: Any = None

    @property
    def board(self) -> tuple[str, str, str, str]:
        """What runs have to share to be compared: hashes of protocol, data, ids and labels."""
        data = self.manifest.data
        return self.manifest.protocol_sha256, data.sha256, data.ids_sha256, self.labels_sha256

    @property
    def not_ranked(self) -> str | None:
        """Why it is shown without a rank; None if nothing in the run itself is against one."""
        if not self.summary.complete:
            return "not complete"
        if not self.manifest.reproducible:
            return "not reproducible"
        return None

    @property
    def undiagnosed(self) -> bool:
        """Whether nobody looked if its attacks failed, though it can be measured."""
        return self.summary.flags is None and can_be_diagnosed(self.manifest.protocol)


Keep = Callable[[Entry, RunStore], Any]


@dataclass(frozen=True)
class Refused:
    """A folder that is no record to be trusted.

    Attributes:
        folder: Where it lies.
        problem: One line that says why.
    """

    folder: Path
    problem: str


def read_entry(folder: Path, keep: Keep | None = None) -> Entry:
    """Read a run that anybody may have written.

    Args:
        folder: Of the run.
        keep: Makes what else is wanted, while the rows are at hand.

    Raises:
        ContradictionError: A sample is both certified and broken.
        RecordError: It is not a run, or it does not agree with itself.
    """
    if folder.is_symlink():
        raise RecordError(f"{folder} is a symbolic link, not a run's folder; name the folder")
    store = RunStore.open(folder).snapshot()
    problems = store.verify_bytes()
    if problems:
        _stop_at_contradiction(store)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RecordError(f"{problems[0]}{more}")
    settled = store.verdicts()
    frames = store.read_steps()
    right = right_by_rate(store.manifest, frames, settled["verdict"])
    labels = _labels_sha256(store.manifest.data.classes, frames[CLEAN_STEP])
    entry = Entry(folder, store.manifest, store.summary(), settled, right, labels)
    return entry if keep is None else replace(entry, kept=keep(entry, store))


def _labels_sha256(classes: Sequence[str], clean: pd.DataFrame) -> str:
    found = clean[["sample_id", "label"]].to_numpy(np.int64)
    found = found[found[:, 0].argsort()].astype("<i8")
    return hashlib.sha256(canonical_json(list(classes)) + b"\n" + found.tobytes()).hexdigest()


def _stop_at_contradiction(store: RunStore) -> None:
    """Raise ContradictionError if that is what is wrong with a record, among other things."""
    try:
        store.verdicts()
    except ContradictionError:
        raise
    except RecordError:
        pass


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Return the folders of runs among and right under some folders, in order, each once.

    Raises:
        RecordError: A place is no folder, or there is no run in it.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise RecordError(f"no such folder: {place}")
        if is_run(place):
            found[place] = None
            continue
        inside = [path for path in list_folder(place, place) if path.is_dir() and is_run(path)]
        if not inside:
            raise RecordError(f"no runs in {place}")
        found |= dict.fromkeys(sorted(inside))
    return list(found)


def read_entries(
    folders: Sequence[Path], jobs: int = 1, keep: Keep | None = None
) -> tuple[list[Entry], list[Refused]]:
    """Read runs; one that cannot be trusted hides no other.

    Args:
        folders: Of the runs; results are in their order.
        jobs: Processes to read with.
        keep: As of `read_entry`; a function of a module.
    """
    read = partial(_read, keep=keep)
    if (jobs := min(jobs, len(folders))) > 1:
        # not forked: Arrow has threads, and a copy of a lock that one of them holds stays locked
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context) as pool:
            found = list(pool.map(read, folders, chunksize=_CHUNK))
    else:
        found = [read(folder) for folder in folders]
    entries = [each for each in found if isinstance(each, Entry)]
    return entries, [each for each in found if isinstance(each, Refused)]


def _read(folder: Path, keep: Keep | None) -> Entry | Refused:
    try:
        return read_entry(folder, keep)
    except RecordError as error:
        return Refused(folder, str(error))

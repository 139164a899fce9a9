"""The shards of a step, worked off by one worker or by many that share a folder.

Shards are cut from what the steps before left, by fixed numbers and never by the clock: every
worker and every resume cuts the same ones. A step begins when the one before is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from leaderboards.holders import count_holders
from leaderboards.manifest import Manifest
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.summary import Summary
from leaderboards.verdicts import Verdict
from robustbench_c import run_log
from robustbench_c.leases import Leases

Progress = Callable[[str, int, int, int], None]
"""Called with (step, samples finished, samples in all, samples it settled)."""


@runtime_checkable
class SharedProgress(Protocol):
    """A `Progress` that wants to know of shards and of the workers that share them, as well."""

    def shards(self, step: str, done: int, total: int, workers: int) -> None:
        """Be told how many shards of a step are done, and how many workers are alive."""
        ...


Item = TypeVar("Item")
Report = Callable[[int, int], None]
"""Called with (samples finished, samples settled) of one shard."""

MOST = 2000
"""Samples in a shard."""
_BYTES = 1 << 29
_OPERATIONS = 1.5e11
"""Multiply-adds of a shard at worst: about half a minute of one core."""
_PARTS = 16
"""Shards of all samples, at least, so that many workers have some each."""
_PAUSE = 0.2
_LOOK = 2.0
"""Seconds between looks at what the others have done."""


def shard_size(manifest: Manifest, passes: float) -> int:
    """Return how many samples make a shard of fair length.

    Args:
        manifest: Of the run; a tile of its passes is the least.
        passes: Of a sample, at worst.
    """
    size = manifest.model.size
    each = size.macs if size is not None and size.macs else 10 * manifest.model.parameters
    data = manifest.data
    return fair_size(each * passes, data.samples, manifest.tiles[-1], data.shape)


def fair_size(operations: float, samples: int, tile: int, shape: tuple[int, ...]) -> int:
    """Return how many samples make a shard of fair length.

    Args:
        operations: Multiply-adds of a sample, at worst.
        samples: Of the run.
        tile: Samples of a pass: the least.
        shape: Of a sample.
    """
    fair = max(min(_OPERATIONS / max(operations, 1.0), samples / _PARTS), tile)
    room = _BYTES // max(4 * int(np.prod(shape)), 1)
    return max(1, int(min(fair, MOST, room)))


def cut(ids: Ids, size: int) -> list[Ids]:
    """Cut samples, by ascending id, into shards."""
    ids = np.sort(ids)
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def begun_at(start: float, items: Sequence[Item]) -> list[Item]:
    """Return items in turn from the one where a worker begins, in [0, 1) of all of them."""
    first = int(start * len(items))
    return [*items[first:], *items[:first]]


def work_off(
    store: RunStore,
    leases: Leases,
    step: str,
    shards: Sequence[Ids],
    work: Callable[[Ids, Report], None],
    progress: Progress | None = None,
) -> None:
    """Work on what has no rows yet until all of it is there, whoever does it.

    Args:
        store: The record.
        leases: Of this worker.
        step: Name of the step.
        shards: Ids of each.
        work: Called with the ids of a shard that have no row yet, to write it, and with what to
            call with (samples finished, samples settled) while it is at it.
        progress: Called as samples finish.
    """
    on = _Step(store, leases, step, shards, progress)
    while on.left:
        before = len(on.left)
        for path in list(on.left):
            if path not in on.left:  # another worker's, counted meanwhile
                continue
            seconds = None
            if not path.exists():
                with leases.claim(step, path.name) as mine:
                    if not mine:
                        continue
                    if not path.exists():
                        started = time.perf_counter()
                        work(on.left[path], on.report)
                        seconds = time.perf_counter() - started
            on.count(path, seconds)
            on.look()
        if len(on.left) == before and not on.look(now=True):
            on.wait()
    leases.clear()


class _Step:
    """How far a step is, as one worker sees it.

    Attributes:
        left: Ids of the shards that are not there, by their path, in the order in which this
            worker turns to them.
    """

    def __init__(
        self,
        store: RunStore,
        leases: Leases,
        step: str,
        shards: Sequence[Ids],
        progress: Progress | None,
    ) -> None:
        self._store, self._step, self._progress = store, step, progress
        self._run = leases.folder.parent
        there = store.read_step(step)
        known = there["sample_id"].to_numpy()
        left = [ids for each in shards if len(ids := np.setdiff1d(each, known))]
        self.left = {store.shard_path(step, ids): ids for ids in begun_at(leases.start, left)}
        self._samples = len(np.union1d(known, np.concatenate([*shards, _NONE])))
        self._shards = len(shards)
        self._finished, self._settled = len(there), int(there["verdict"].isin(_SETTLED).sum())
        self._looked, self._waits = time.monotonic(), False
        self._workers, self._asked = 1, -_LOOK
        if left:
            done = len(shards) - len(left)
            run_log.step_begun(step, self._samples, len(shards), (len(there), done))
        self.report(0, 0, at_work=False)

    def count(self, path: Path, seconds: float | None = None) -> None:
        """Count a shard that is there, and write down what it took this worker, if it was its."""
        verdicts = self._store.read_shard(self._step, path)["verdict"].to_pandas()
        hits, samples = int(verdicts.isin(_SETTLED).sum()), len(self.left.pop(path))
        if seconds is not None:
            run_log.shard_done(self._step, path.name, samples, hits, seconds)
            self._waits = False
        self._finished, self._settled = self._finished + samples, self._settled + hits
        self.report(0, 0, at_work=False)

    def look(self, now: bool = False) -> bool:
        """Count what others have done, unless it was looked for just before; says whether any."""
        if not now and time.monotonic() - self._looked < _LOOK:
            return False
        self._looked = time.monotonic()
        there = set(self._store.shard_paths(self._step))
        new = [path for path in self.left if path in there]
        for path in new:
            self.count(path)
        return bool(new)

    def wait(self) -> None:
        """Wait a moment for those who have what is left."""
        if not self._waits:
            run_log.waiting(self._step, len(self.left))
        self._waits = True
        run_log.still_waiting()
        time.sleep(_PAUSE)

    def report(self, done: int, hits: int, at_work: bool = True) -> None:
        """Tell how far the step is with `done` samples of the shard at hand, `hits` settled.

        Args:
            done: As said.
            hits: As said.
            at_work: Whether this worker is at a shard, and so holds a lease.
        """
        if self._progress is None:
            return
        watcher: object = self._progress
        if isinstance(watcher, SharedProgress):
            if time.monotonic() - self._asked > _LOOK:
                self._asked = time.monotonic()
                self._workers = count_holders(self._run) + (not at_work)
            shards = self._shards - len(self.left), self._shards
            watcher.shards(self._step, *shards, self._workers)
        all_ = self._finished + done, self._samples, self._settled + hits
        self._progress(self._step, *all_)


def once(leases: Leases, name: str, is_there: Callable[[], bool], make: Callable[[], None]) -> None:
    """Make what a run needs once, or wait for the worker that makes it."""
    while not is_there():
        with leases.claim("once", name) as mine:
            if mine and not is_there():
                make()
        if not mine:
            time.sleep(_PAUSE)
    leases.clear()


def finish(store: RunStore, leases: Leases) -> Summary:
    """Write the summary of a run whose steps are done, and remove what the killed have left."""
    leases.check()
    summary = store.write_summary()
    store.remove_leftovers()
    leases.remove()
    return summary


_SETTLED = [str(Verdict.BROKEN), str(Verdict.CERTIFIED)]
_NONE = np.empty(0, dtype=np.int64)

"""The shards of a step, worked off by one worker or by many that share a folder.

Shards are cut from what the steps before left, by fixed numbers and never by the clock: every
worker and every resume cuts the same ones. A step begins when the one before is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from leaderboards.manifest import Manifest
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation.leases import Leases

Progress = Callable[[str, int, int, int], None]
"""Called with (step, samples finished, samples in all, samples it settled)."""
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
    there = store.read_step(step)
    known = there["sample_id"].to_numpy()
    left = [ids for each in shards if len(ids := np.setdiff1d(each, known))]
    total = len(np.union1d(known, np.concatenate([*shards, np.empty(0, dtype=np.int64)])))
    finished, settled = len(there), int(there["verdict"].isin(_SETTLED).sum())

    def report(done: int, hits: int) -> None:
        if progress is not None:
            progress(step, finished + done, total, settled + hits)

    report(0, 0)
    first = int(leases.start * len(left))
    left = left[first:] + left[:first]
    while left:
        before = len(left)
        for ids in list(left):
            path = store.shard_path(step, ids)
            if not path.exists():
                with leases.claim(step, path.name) as mine:
                    if not mine:
                        continue
                    if not path.exists():
                        work(ids, report)
            left = [each for each in left if each is not ids]
            verdicts = store.read_shard(step, path)["verdict"].to_pandas()
            finished, settled = finished + len(ids), settled + int(verdicts.isin(_SETTLED).sum())
            report(0, 0)
        if len(left) == before:
            time.sleep(_PAUSE)
    leases.clear()


def once(leases: Leases, name: str, is_there: Callable[[], bool], make: Callable[[], None]) -> None:
    """Make what a run needs once, or wait for the worker that makes it."""
    while not is_there():
        with leases.claim("once", name) as mine:
            if mine and not is_there():
                make()
        if not mine:
            time.sleep(_PAUSE)
    leases.clear()


_SETTLED = [str(Verdict.BROKEN), str(Verdict.CERTIFIED)]

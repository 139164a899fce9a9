"""Small whole runs for the tests of what compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from record_makers import CROWN, PGD, a_frame, a_manifest, a_row  # type: ignore[import-not-found]

from leaderboards.store import RunStore

STEPS = (PGD, CROWN)


def a_run(
    folder: Path,
    wrong: set[int],
    broken: set[int],
    certified: set[int],
    samples: int = 10,
    **changes: Any,
) -> RunStore:
    """A run by PGD and CROWN; samples in no set are undecided."""
    changes = {"ids": f"0-{samples - 1}"} | changes
    store = RunStore.create(folder, a_manifest(STEPS, **changes))
    ids = range(samples)
    right = [i for i in ids if i not in wrong]
    left = [i for i in right if i not in broken]
    store.write_shard("clean", a_frame(*[a_row(i, "wrong" if i in wrong else None) for i in ids]))
    store.write_shard("pgd", a_frame(*[a_row(i, "broken" if i in broken else None) for i in right]))
    rows = [
        a_row(
            i,
            "certified" if i in certified else None,
            prediction=None,
            margin=None,
            method="crown",
            bound=0.5 if i in certified else -0.5,
            detail=None if i in certified else "unknown",
            work=1,
        )
        for i in left
    ]
    store.write_shard("crown", a_frame(*rows))
    return store

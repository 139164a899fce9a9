"""Small whole runs for the tests of boards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from record_makers import CROWN, PGD, a_frame, a_manifest, a_row  # type: ignore[import-not-found]

from leaderboards.store import RunStore

STEPS = (PGD, CROWN)


def write_run(
    folder: Path,
    wrong: set[int] = frozenset(),
    broken: set[int] = frozenset(),
    certified: set[int] = frozenset(),
    samples: int = 10,
    name: str = "cnn",
    sha256: str = "a" * 64,
    **changes: Any,
) -> RunStore:
    """Write a whole run of PGD and CROWN on samples 0 to `samples` - 1, and its summary."""
    manifest = a_manifest(STEPS, ids=f"0-{samples - 1}", **changes)
    model = manifest.model.model_copy(update={"name": name, "sha256": sha256})
    store = RunStore.create(folder, manifest.model_copy(update={"model": model}))
    ids = range(samples)
    right = [i for i in ids if i not in wrong]
    left = [i for i in right if i not in broken]
    store.write_shard("clean", a_frame(*[a_row(i, "wrong" if i in wrong else None) for i in ids]))
    if right:
        rows = [a_row(i, "broken" if i in broken else None) for i in right]
        store.write_shard("pgd", a_frame(*rows))
    if left:
        store.write_shard("crown", a_frame(*[_proof(i, i in certified) for i in left]))
    store.write_summary()
    return store


def _proof(sample: int, proved: bool) -> dict[str, Any]:
    told = {"bound": 0.5} if proved else {"bound": -0.5, "detail": "unknown"}
    verdict = "certified" if proved else None
    return a_row(sample, verdict, prediction=None, margin=None, method="crown", work=1, **told)

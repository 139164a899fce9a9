"""What somebody who trusts a record should know besides."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from leaderboards.diagnostics import FILE as DIAGNOSTICS
from leaderboards.diagnostics import can_be_diagnosed
from leaderboards.examples import FOLDER
from leaderboards.sample_ids import format_ids
from leaderboards.store import MANIFEST, SHARDS, SUMMARY, RunStore
from leaderboards.summary import Summary
from leaderboards.validation.findings import Finding
from leaderboards.validation.tree import CONTRADICTION
from leaderboards.verdicts import CLEAN_STEP, Verdict

_RESUME = "the same robust-eval command goes on with it"


def remarks(
    store: RunStore, frames: dict[str, pd.DataFrame], told: Summary | None
) -> Iterator[Finding]:
    """Yield what keeps a run from being ranked or trusted, though no rule is broken."""
    manifest = store.manifest
    if (store.folder / CONTRADICTION).exists():
        problem = "evidence that a sample was both certified and broken"
        yield Finding("error", CONTRADICTION, problem, "the run has no result")
    ids = manifest.data.sample_ids
    missing = ids[~pd.Index(ids).isin(frames[CLEAN_STEP]["sample_id"])]
    if missing.size:
        problem = f"no rows for {missing.size} of {ids.size} samples: {format_ids(missing)}"
        yield Finding("warning", f"{SHARDS}/{CLEAN_STEP}", problem, _RESUME)
    elif told is None or not told.complete:
        yield Finding("warning", SUMMARY, "the run is not complete: it is not ranked", _RESUME)
    if not manifest.reproducible:
        problem = "the run is not reproducible (a limit of time, or a foolbox attack): not ranked"
        yield Finding("warning", MANIFEST, problem, "budget in work, not in seconds")
    if told is not None and told.flags:
        names = ", ".join(flag.name for flag in told.flags)
        problem = f"red flags, the attacks may have failed: {names}"
        yield Finding("warning", DIAGNOSTICS, problem, "try --attack auto")
    looked = (store.folder / DIAGNOSTICS).exists() or not can_be_diagnosed(manifest.protocol)
    if told is not None and told.complete and not looked:
        problem = "nobody looked whether its attacks failed: robust accuracy may be far too high"
        yield Finding("warning", DIAGNOSTICS, problem, "the same robust-eval makes the file")
    broken = sum(int(frame["verdict"].isin([Verdict.BROKEN]).sum()) for frame in frames.values())
    if broken and not (store.folder / FOLDER).exists() and manifest.protocol.corruption is None:
        problem = f"the {broken} adversarial examples are not stored: nobody can replay them"
        yield Finding("note", FOLDER, problem, "run it with --save-adversarial")
    for notice in manifest.notices:
        yield Finding("note", f"{MANIFEST}: notices", notice)
    for notice in told.notices if told is not None else ():
        yield Finding("note", SHARDS, notice)

"""Which samples attacks came near to break: those that close a suite are for them alone.

Near is a matter of the sample's own margins, so that no verdict hangs on other samples.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pandas as pd

from leaderboards.errors import RecordError
from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.verdicts import CLEAN_STEP

NEAR = "near"
"""Name of the share in the parameters of a step; absent where the step is for all samples."""

Margins = TypeVar("Margins")


def is_near(lowest: Margins, clean: Margins, share: float) -> Margins:
    """Which samples came near to breaking.

    Args:
        lowest: Lowest margin met so far of each sample, an array or a tensor; NaN: none.
        clean: Its margin without an attack.
        share: Near is where the lowest is at most this share of how far the margin fell.

    Returns:
        Booleans; true where no margin was met.
    """
    return ~(lowest > share * (clean - lowest))  # type: ignore[operator,no-any-return]


def near_before(store: RunStore, step: StepInfo) -> Ids:
    """Return the ids, ascending, of the samples that are near when a step with a share begins.

    Raises:
        RecordError: The step of a stranger's record says no share.
    """
    share = step.parameters.get(NEAR)
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise RecordError(f"step {step.name} says {share!r} of how near samples are: no number")
    protocol = store.manifest.protocol.steps
    earlier = protocol[: protocol.index(step)]
    frames = [store.read_step(each.name) for each in earlier if each.kind == "attack"]
    clean = store.read_step(CLEAN_STEP).set_index("sample_id")["margin"].sort_index()
    if not frames:
        return clean.index.to_numpy(dtype=np.int64)
    lowest = pd.concat(frames).groupby("sample_id")["margin"].min().reindex(clean.index)
    return clean.index[is_near(lowest, clean, share)].to_numpy(dtype=np.int64)

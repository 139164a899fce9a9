"""From the rows of all steps to one verdict for each sample."""

from __future__ import annotations

import numpy as np
import pandas as pd

from leaderboards.errors import ContradictionError
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import CLEAN_STEP, SETTLED, Verdict


def sample_verdicts(frames: dict[str, pd.DataFrame], samples: Ids) -> pd.DataFrame:
    """Return each sample's verdict and the step that settled it.

    The first step that settles a sample gives its verdict. Where none does: `error` if the clean
    step failed, and once all steps ran `error` if one of them failed, else `undecided`.

    Args:
        frames: The rows of every step, in the protocol's order, `clean` first.
        samples: The run's sample ids.

    Returns:
        Indexed by sample id: `verdict` (null: not run to the end) and `settled_by` (null: none).

    Raises:
        ContradictionError: A sample is both certified and broken.
    """
    index = pd.Index(samples, name="sample_id")
    ran = {step: index.isin(frame["sample_id"]) for step, frame in frames.items()}
    rows = {
        step: frame.set_index("sample_id")["verdict"].reindex(index)
        for step, frame in frames.items()
    }
    broken, certified, failed = (
        np.any([column.isin([verdict]) for column in rows.values()], axis=0)
        for verdict in (Verdict.BROKEN, Verdict.CERTIFIED, Verdict.ERROR)
    )
    if (broken & certified).any():
        raise ContradictionError(tuple(int(i) for i in samples[broken & certified]))

    result = pd.DataFrame({"verdict": pd.NA, "settled_by": pd.NA}, index=index, dtype="string")
    for step, column in rows.items():
        new = ran[CLEAN_STEP] & column.isin(SETTLED) & result["verdict"].isna()
        result.loc[new, "verdict"] = column[new]
        result.loc[new, "settled_by"] = step
    over = np.all(list(ran.values()), axis=0) | rows[CLEAN_STEP].isin([Verdict.ERROR])
    over &= result["verdict"].isna()
    result.loc[over, "verdict"] = np.where(failed[over], Verdict.ERROR, Verdict.UNDECIDED)
    return result

"""From the rows of all steps to one verdict for each sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from leaderboards.errors import ContradictionError
from leaderboards.explained import beyond_bound
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import CLEAN_STEP, SETTLED, Reason, Verdict, reason_of


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
        ContradictionError: A sample is both certified and broken, or has an adversarial example
            within the radius that is certified for it, or its explanation was bent beyond what was
            proved.
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
    contradicted = (broken & certified) | _found_within_radius(frames, index)
    contradicted |= beyond_bound(frames, index)
    if contradicted.any():
        raise ContradictionError(tuple(int(i) for i in samples[contradicted]))

    result = pd.DataFrame({"verdict": pd.NA, "settled_by": pd.NA}, index=index, dtype="string")
    for step, column in rows.items():
        new = ran[CLEAN_STEP] & column.isin(SETTLED) & result["verdict"].isna()
        result.loc[new, "verdict"] = column[new]
        result.loc[new, "settled_by"] = step
    over = np.all(list(ran.values()), axis=0) | rows[CLEAN_STEP].isin([Verdict.ERROR])
    over &= result["verdict"].isna()
    result.loc[over, "verdict"] = np.where(failed[over], Verdict.ERROR, Verdict.UNDECIDED)
    return result


def open_reasons(certificates: list[pd.DataFrame]) -> pd.Series[str]:
    """Return why each sample stayed open, by sample id: what the last certificate says of it.

    Args:
        certificates: The rows of the steps of that kind, in the protocol's order.
    """
    rows = pd.concat(certificates).set_index("sample_id")
    rows = rows[rows["verdict"].isna()]
    reasons = rows["detail"].map(reason_of, na_action="ignore").dropna()
    return reasons[~reasons.index.duplicated(keep="last")].astype("string")


def count_reasons(reasons: pd.Series[str]) -> dict[str, int]:
    """Return the number of samples for each reason, those of none included."""
    return {str(reason): int((reasons == str(reason)).sum()) for reason in Reason}


def _found_within_radius(
    frames: dict[str, pd.DataFrame], index: pd.Index[int]
) -> npt.NDArray[np.bool_]:
    rows = pd.concat(list(frames.values()))
    radius = rows.groupby("sample_id")["radius"].max().reindex(index)
    distance = rows.groupby("sample_id")["distance"].min().reindex(index)
    return (distance <= radius).to_numpy(dtype=np.bool_)

"""From the rows of all steps to one verdict for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from leaderboards.cells import CODES, NONE, Cells, Codes, strings
from leaderboards.errors import ContradictionError
from leaderboards.explained import beyond_bound
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import SETTLED, Reason, Verdict

_SETTLED = [CODES[verdict] for verdict in SETTLED]


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
    return verdicts_of({step: Cells(frame) for step, frame in frames.items()}, samples)


def verdicts_of(steps: Mapping[str, Cells], samples: Ids) -> pd.DataFrame:
    """Return `sample_verdicts` of the rows of every step as arrays; errors as of there."""
    index = pd.Index(samples, name="sample_id")
    frames = {step: cells.frame for step, cells in steps.items()}
    ran = np.zeros((len(frames), samples.size), dtype=np.bool_)
    codes = np.full((len(frames), samples.size), NONE, dtype=np.int8)
    nearest, proved = np.full(samples.size, np.inf), np.full(samples.size, -np.inf)
    for i, cells in enumerate(steps.values()):
        place = index.get_indexer(pd.Index(cells.ids))
        ran[i, place], codes[i, place] = True, cells.verdict
        nearest[place] = np.fmin(nearest[place], cells.number("distance"))
        proved[place] = np.fmax(proved[place], cells.number("radius"))
    broken, certified, failed = (
        (codes == CODES[verdict]).any(axis=0)
        for verdict in (Verdict.BROKEN, Verdict.CERTIFIED, Verdict.ERROR)
    )
    contradicted = (broken & certified) | (nearest <= proved) | beyond_bound(frames, index)
    if contradicted.any():
        raise ContradictionError(tuple(int(i) for i in samples[contradicted]))

    verdict = np.full(samples.size, NONE, dtype=np.int8)
    by = np.full(samples.size, NONE)
    for i in range(len(frames)):
        new = ran[0] & np.isin(codes[i], _SETTLED) & (verdict == NONE)
        verdict[new], by[new] = codes[i, new], i
    over = (ran.all(axis=0) | (codes[0] == CODES[Verdict.ERROR])) & (verdict == NONE)
    verdict[over] = np.where(failed[over], CODES[Verdict.ERROR], CODES[Verdict.UNDECIDED])
    words = {"verdict": strings(verdict, list(Verdict)), "settled_by": strings(by, list(frames))}
    return pd.DataFrame(words, index=index)


def open_reasons(certificates: Sequence[Cells]) -> tuple[Ids, Codes]:
    """Return why samples stayed open: what the last certificate that gives a reason says of each.

    Args:
        certificates: The rows of the steps of that kind, in the protocol's order.

    Returns:
        Sample ids, and codes of their reasons.
    """
    told = [(cells.verdict == NONE) & (cells.reason != NONE) for cells in certificates]
    ids = np.concatenate([c.ids[here] for c, here in zip(certificates, told, strict=True)])
    codes = np.concatenate([c.reason[here] for c, here in zip(certificates, told, strict=True)])
    unique, last = np.unique(ids[::-1], return_index=True)
    return unique, codes[::-1][last]


def count_reasons(codes: Codes) -> dict[str, int]:
    """Return the number of samples for each reason, those of none included."""
    return {str(reason): int((codes == CODES[reason]).sum()) for reason in Reason}

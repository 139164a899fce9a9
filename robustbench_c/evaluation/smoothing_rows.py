"""From votes under noise to the rows of a smoothed classifier's record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from certify.smoothing import ABSTAIN, SmoothingConfig
from certify.voting import Votes
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation.steps import frame_of

_NO_VOTE = "no draw of the selection had a strictly largest, finite logit"
_NOT_FINITE = "NaN or Inf logits in some draws, which count for no class"


def selection_rows(y: Tensor, ids: Tensor, votes: Votes, n0: int) -> pd.DataFrame:
    """Rows of the step `clean` (without their time): `wrong` unless the label won the vote.

    The margin is the label's share of the draws less the largest share of another class; a tie
    counts against the label. Where no draw had a winner, there is nothing to select: `error`.
    """
    label = y.numpy()
    mine, rival = _own_and_rival(votes, label)
    failed = votes.counts.sum(1) == 0
    lost = mine <= rival.votes
    verdict = np.select([failed, lost], [str(Verdict.ERROR), str(Verdict.WRONG)], "")
    prediction = pd.Series(np.where(lost, rival.label, label)).astype("Int64")
    return frame_of(
        ids,
        y,
        verdict=pd.Series(verdict, dtype="string").replace("", pd.NA),
        prediction=prediction.where(pd.Series(~failed)),
        margin=np.where(failed, np.nan, (mine - rival.votes) / n0),
        votes=pd.Series(mine).astype("Int64"),
        detail=[_NO_VOTE if f else None for f in failed],
        **_passes(len(y), n0),
    )


def estimation_rows(
    y: Tensor, ids: Tensor, votes: Votes, config: SmoothingConfig, eps: float
) -> pd.DataFrame:
    """Rows of the step `smoothing` (without their time), of samples whose selection was right.

    `prediction` is PREDICT's (null: it abstained), `radius` CERTIFY's. A radius belongs to a
    prediction: where PREDICT names no class or another one, none is given, which can only
    withhold certificates. (The two differ where the radius is about 0.)
    """
    label = y.numpy()
    mine, rival = _own_and_rival(votes, label)
    prediction = config.predict(votes.counts)
    radius = np.where(prediction == label, config.radius(mine), np.nan)
    verdict = [str(Verdict.CERTIFIED) if r > eps else None for r in radius]
    return frame_of(
        ids,
        y,
        verdict=verdict,
        prediction=pd.Series(prediction).astype("Int64").where(pd.Series(prediction != ABSTAIN)),
        margin=(mine - rival.votes) / config.n,
        radius=radius,
        votes=pd.Series(mine).astype("Int64"),
        detail=[_NOT_FINITE if bad else None for bad in votes.not_finite],
        **_passes(len(y), config.n),
    )


@dataclass(frozen=True, eq=False)
class _Rival:
    """The class other than the label with the most votes, and how many it has."""

    label: np.ndarray
    votes: np.ndarray


def _own_and_rival(votes: Votes, label: np.ndarray) -> tuple[np.ndarray, _Rival]:
    """Votes for the label, and for its strongest rival."""
    place = np.arange(len(label))
    others = votes.counts.copy()
    others[place, label] = -1
    rival = others.argmax(1)
    return votes.counts[place, label], _Rival(rival, others[place, rival])


def _passes(samples: int, draws: int) -> dict[str, Any]:
    forwards = np.full(samples, draws, dtype=np.int64)
    return {"forwards": forwards, "backwards": np.zeros_like(forwards)}

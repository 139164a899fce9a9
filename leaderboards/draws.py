"""What a mean over draws of a random model is worth: the same samples, on other draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from leaderboards.manifest import Count, Record
from leaderboards.rates import Rate
from leaderboards.verdicts import CLEAN_STEP, Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

OTHER = "margin_other_draws"
"""Column of the margin on other draws."""


class DrawsSummary(Record):
    """What holds on as many other draws, which no attack has seen."""

    count: Count
    """Number of draws, of either kind."""
    clean_accuracy: Rate | None
    """Correct without an attack on the other draws, among the samples begun."""
    held: Rate | None
    """Broken samples whose adversarial example is misclassified on the other draws, too; null
    where none is broken."""


def draws_summary(store: RunStore, frames: dict[str, pd.DataFrame]) -> DrawsSummary | None:
    """Return the part of a summary that is about other draws; null where the model is no mean."""
    draws = store.manifest.model.draws
    if draws is None or OTHER not in store.layout.schema.names:
        return None
    clean = frames[CLEAN_STEP][OTHER]
    broken = pd.concat([f[f["verdict"].isin([Verdict.BROKEN])] for f in frames.values()])
    found = broken.sort_values("distance").drop_duplicates("sample_id")[OTHER]
    return DrawsSummary(
        count=draws.count,
        clean_accuracy=Rate.of(int((clean > 0).sum()), len(clean)),
        held=Rate.of(int((found < 0).sum()), len(found)),
    )

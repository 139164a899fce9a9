"""Rates with their exact intervals."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leaderboards.manifest import Count, Record
from leaderboards.statistics import clopper_pearson

Share = Annotated[float, Field(ge=0, le=1)]


class Rate(Record):
    """A rate with its exact 95% interval (Clopper-Pearson)."""

    k: Count
    """Samples that count."""
    n: Annotated[int, Field(ge=1)]
    """Samples in all."""
    value: Share
    """k / n."""
    lower: Share
    """Lower end of the interval."""
    upper: Share
    """Upper end of the interval."""

    @classmethod
    def of(cls, k: int, n: int) -> Rate | None:
        """Return the rate, or null where there are no samples."""
        if n == 0:
            return None
        lower, upper = clopper_pearson(k, n)
        return cls(k=k, n=n, value=k / n, lower=lower, upper=upper)

"""What a run of randomised smoothing found: certified accuracy as a function of the radius."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from certify.smoothing import SmoothingConfig, draws_needed
from leaderboards.errors import RecordError
from leaderboards.rates import Rate
from leaderboards.store import RunStore
from leaderboards.verdicts import CLEAN_STEP
from robustbench_c.evaluation.smoothing import SMOOTHING

RADII = (0.25, 0.5, 0.75, 1.0)
"""At which the literature states certified accuracy, in units of a [0, 1] input."""


@dataclass(frozen=True, eq=False)
class SmoothedResult:
    """Rates of a finished run, among all of its samples.

    Attributes:
        config: Noise, draws, and the probability of failure of each sample.
        eps: Radius of the record's verdicts.
        samples: Samples of the run.
        right: PREDICT named the label.
        abstained: PREDICT named no class.
        wrong: Another class won the selection's vote, or was named by PREDICT.
        failed: No draw of the selection had a clear winner.
        radii: L2 radii of the certified samples, ascending, float64.
    """

    config: SmoothingConfig
    eps: float
    samples: int
    right: Rate
    abstained: Rate
    wrong: Rate
    failed: Rate
    radii: npt.NDArray[np.float64]

    @property
    def largest_radius(self) -> float:
        """The radius when all draws agree: none can be larger."""
        return self.config.largest_radius

    def certified(self, radius: float) -> Rate:
        """Samples that are certified beyond `radius`, with the exact 95% interval."""
        beyond = len(self.radii) - int(np.searchsorted(self.radii, radius, side="right"))
        return _rate(beyond, self.samples)

    def reported_radii(self) -> tuple[float, ...]:
        """`RADII`, and the record's own unless it is 0, ascending."""
        return tuple(sorted({*RADII, *([self.eps] if self.eps else [])}))

    def draws_needed(self, radius: float) -> int | None:
        """Draws it would take to certify anything beyond `radius`; None: out of all reach."""
        return draws_needed(radius, self.config.sigma, self.config.alpha)


def read_result(store: RunStore) -> SmoothedResult:
    """Return what the shards of a run hold.

    Raises:
        RecordError: Not a run of smoothing, or not finished.
    """
    settings = {s.name: s.parameters for s in store.manifest.protocol.steps}.get(SMOOTHING)
    if settings is None:
        raise RecordError(f"{store.folder} is not about a smoothed classifier")
    clean, rows = store.read_step(CLEAN_STEP), store.read_step(SMOOTHING)
    n = store.manifest.data.samples
    if len(clean) < n or len(rows) < int(clean["verdict"].isna().sum()):
        raise RecordError(f"{store.folder} is not finished: the same command goes on with it")
    abstained = int(rows["prediction"].isna().sum())
    right = int((rows["prediction"] == rows["label"]).sum())
    failed = int(clean["verdict"].isin(["error"]).sum())
    return SmoothedResult(
        config=SmoothingConfig(**settings),  # type: ignore[arg-type]  # checked by the class
        eps=store.manifest.protocol.threat.eps,
        samples=n,
        right=_rate(right, n),
        abstained=_rate(abstained, n),
        wrong=_rate(n - right - abstained - failed, n),
        failed=_rate(failed, n),
        radii=np.sort(rows["radius"].dropna().to_numpy(np.float64)),
    )


def _rate(k: int, n: int) -> Rate:
    rate = Rate.of(k, n)
    assert rate is not None  # a run has a sample
    return rate

"""The steps of a run: each turns samples into the rows of a shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.driver import Recheck, in_float64, recheck
from attacks.losses import margin
from attacks.result import AttackResult
from attacks.threat import ThreatModel
from leaderboards.columns import PREDICTIONS, Layout
from leaderboards.verdicts import Reason, Verdict
from robustbench_c.errors import CheckFailedError

MARGIN_TOLERANCE = 1e-3
"""Of the largest margin: more than machines differ by, less than models do."""


def precise_form(module: nn.Module, x: Tensor, tiles: tuple[int, ...]) -> TiledClassifier | None:
    """Return the model in float64, in the smallest tile alone, or None if it has no such form.

    That larger tiles give the same bits was measured in float32.
    """
    converted = in_float64(module, x)
    return None if converted is None else TiledClassifier(converted, tiles[:1])


def frame_of(
    ids: Tensor, y: Tensor, *, layout: Layout = PREDICTIONS, **columns: object
) -> pd.DataFrame:
    """Rows of a shard; columns that are not given are null, counts of work 0.

    Args:
        ids: Sample ids.
        y: True classes.
        layout: The run's.
        columns: By name.
    """
    rows: dict[str, object] = {column.name: [None] * len(ids) for column in layout.columns}
    rows |= {name: [0] * len(ids) for name in ("work", "forwards", "backwards")}
    rows |= {"sample_id": ids.cpu().numpy(), "label": y.cpu().numpy()}
    return pd.DataFrame(rows | columns)


def whole_where(mask: np.ndarray, values: Tensor) -> pd.Series[int]:
    """Whole numbers where the mask holds, null elsewhere."""
    return pd.Series(values.cpu().numpy()).astype("Int64").where(pd.Series(mask))


def clean_rows(
    logits: Tensor, y: Tensor, ids: Tensor, seconds: float, *, layout: Layout = PREDICTIONS
) -> pd.DataFrame:
    """Rows of the step `clean`: `wrong`, or still open.

    The predicted class is the first of the largest logits.
    """
    prediction = logits.argmax(1).cpu().numpy()
    verdict = np.where(prediction == y.cpu().numpy(), None, str(Verdict.WRONG))  # type: ignore[call-overload]
    return frame_of(
        ids,
        y,
        verdict=verdict,
        prediction=prediction,
        margin=margin(logits, y).double().cpu().numpy(),
        forwards=np.ones(len(ids), dtype=np.int64),
        seconds=np.full(len(ids), seconds / len(ids)),
        layout=layout,
    )


def clean_fault(recorded: pd.DataFrame, rows: pd.DataFrame) -> str | None:
    """Say where clean rows differ from those on record by more than rounding; None if nowhere."""
    there = recorded.set_index("sample_id")
    here = rows.set_index("sample_id").loc[there.index]
    other = here["label"] != there["label"]
    gap = (here["margin"] - there["margin"]).abs()
    far = ~(gap <= MARGIN_TOLERANCE * here["margin"].abs().max())
    for name, bad in (("label", other.to_numpy()), ("margin", far.to_numpy())):
        if bad.any():
            row = int(bad.argmax())
            return (
                f"clean sample {there.index[row]} has the {name} {there[name].iloc[row]:g} on "
                f"record, {here[name].iloc[row]:g} now ({int(bad.sum())} samples differ)"
            )
    return None


@dataclass(eq=False)
class Judged:
    """The rows of a step, and the adversarial examples among its samples that hold.

    Attributes:
        rows: One for each sample.
        broken: Which samples have one, bool, (n,): of a search for the nearest also beyond eps.
        adversarial: The examples, (n, *shape).
    """

    rows: pd.DataFrame
    broken: Tensor
    adversarial: Tensor


def attack_rows(
    classifier: TiledClassifier,
    precise: TiledClassifier | None,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    result: AttackResult,
    eps: float | None = None,
) -> Judged:
    """Re-check what an attack found and write the rows of its step.

    Args:
        classifier: The model in float32.
        precise: The model in float64, or None.
        x: Clean samples, (n, *shape).
        y: True classes, (n,).
        ids: Sample ids, (n,).
        threat: What the attacker was allowed while searching.
        result: What the attack claims.
        eps: Largest distance of an example that breaks its sample, if that is less than there.

    Raises:
        CheckFailedError: The attack left the threat model: a defect that stops the run.
    """
    check = recheck(classifier, precise, x, result.adversarial, y, threat)
    outside = result.found & ~check.legal
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise CheckFailedError(
            f"the attack's example for sample {int(ids[first])} is not legal (distance "
            f"{float(check.distance[first])!r}, eps {threat.eps!r}): a defect of the attack"
        )
    broken = result.found & check.broken
    near = broken if eps is None else broken & (check.distance <= eps)
    hit = broken.cpu().numpy()
    # no example: the row is about the worst point met; what does not hold beyond rounding is a tie
    shown = torch.where(broken, check.margin, result.lowest.double().clamp_min(0.0))
    failed = (result.not_finite & ~broken) | ~shown.isfinite()
    known = ~failed.cpu().numpy()
    return Judged(
        rows=frame_of(
            ids,
            y,
            verdict=[_verdict(b, f) for b, f in zip(near.tolist(), ~known, strict=True)],
            prediction=whole_where(known, torch.where(broken, check.prediction, y)),
            margin=np.where(known, shown.cpu().numpy(), np.nan),
            margin64=np.where(hit, check.margin64.cpu().numpy(), np.nan),
            distance=np.where(hit, check.distance.cpu().numpy(), np.nan),
            restart=whole_where(hit, result.restart),
            iteration=whole_where(hit, result.iteration),
            forwards=result.forwards.cpu().numpy(),
            backwards=result.backwards.cpu().numpy(),
            seconds=result.seconds.cpu().numpy(),
            detail=_details(result, check, failed),
        ),
        broken=broken,
        adversarial=result.adversarial,
    )


def _verdict(broken: bool, failed: bool) -> str | None:
    if broken:
        return str(Verdict.BROKEN)
    return str(Verdict.ERROR) if failed else None


def _details(result: AttackResult, check: Recheck, failed: Tensor) -> list[str | None]:
    details: list[str | None] = []
    for found, rounding, holds, nan, flat, late, passes in zip(
        result.found.tolist(),
        (result.rounding & ~check.broken).tolist(),
        check.broken.tolist(),
        failed.tolist(),
        (result.flat & ~check.broken).tolist(),
        (result.timeout & ~check.broken).tolist(),
        result.forwards.tolist(),
        strict=True,
    ):
        if nan:
            details.append("a logit or a gradient was NaN or Inf inside the threat model")
        elif found and not holds:
            details.append("not reproduced: the example did not hold when it was re-checked")
        elif rounding:
            details.append("rounding: misclassified in float32, not in float64")
        elif late:
            details.append(f"{Reason.TIMEOUT}: the time for attacks was over first")
        elif passes == 0:
            details.append("budget: no query was left for it")
        elif flat:
            details.append("zero gradient: the attack stood still, robustness is not shown")
        else:
            details.append(None)
    return details

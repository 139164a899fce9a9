"""From the certificates of a bound engine to the rows of a step; nothing of them is trusted."""

from __future__ import annotations

import errno
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.driver import Recheck, recheck
from attacks.errors import TooLittleMemoryError
from attacks.threat import ThreatModel
from certify.result import Certificates, Outcome
from leaderboards.errors import one_line
from leaderboards.verdicts import Reason, Verdict
from robustbench_c.errors import ModelError
from robustbench_c.evaluation.certifying import Budget, Certifier, Method
from robustbench_c.evaluation.protocol_steps import Proof
from robustbench_c.evaluation.steps import Judged, frame_of, whole_where
from robustbench_c.evaluation.task import Task

_REASONS = {
    Outcome.UNKNOWN: Reason.UNKNOWN,
    Outcome.ROUNDING: Reason.ROUNDING,
    Outcome.TIMEOUT: Reason.TIMEOUT,
}


@dataclass(frozen=True)
class Ending:
    """How the attempt on one sample ended, once it was looked at: what its row says."""

    verdict: Verdict | None
    detail: str | None = None
    reason: Reason | None = None

    @property
    def text(self) -> str | None:
        """The row's `detail`."""
        parts = [part for part in (self.reason, self.detail) if part]
        return one_line(": ".join(parts)) if parts else None


def certify_places(
    task: Task, certifier: Certifier, proof: Proof, part: Tensor, seed: int
) -> Judged:
    """Try to prove the samples at the places `part`, together, and judge what comes back."""
    ids, place = task.data.ids[part], part.to(task.x.device)
    x, y = task.x[place], task.y[place]
    found = attempt(certifier, proof.method, x, y, ids, task.threat, proof.budget, seed)
    return _judge(task, x, y, ids, found)


def attempt(
    certifier: Certifier,
    method: Method,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    budget: Budget,
    seed: int,
) -> Certificates:
    """Run a certificate so that an exception is the error of the samples that raise it.

    Raises:
        TooLittleMemoryError: Memory runs out with one sample.
        Exception: The model cannot be certified at all (an error with the exit code of
            `ModelError`).
    """
    started = time.perf_counter()
    try:
        return certifier.certify(method, x, y, ids, threat, budget, seed)
    except Exception as error:  # whatever a bound can raise, the other samples have their turn
        if getattr(error, "exit_code", None) == ModelError.exit_code:
            raise
        if isinstance(error, TooLittleMemoryError) or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        ):
            raise
        if len(x) == 1:
            return _failed(method, x, error, time.perf_counter() - started)
    rows = [slice(i, i + 1) for i in range(len(x))]
    return _joined(
        x, [attempt(certifier, method, x[i], y[i], ids[i], threat, budget, seed) for i in rows]
    )


def _failed(method: str, x: Tensor, error: Exception, seconds: float) -> Certificates:
    said = one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    return Certificates(
        outcome=(Outcome.ERROR,),
        method=(method,),
        lower=torch.full((1,), -torch.inf, dtype=torch.float64),
        seconds=torch.full((1,), seconds, dtype=torch.float64),
        work=torch.zeros(1, dtype=torch.int64),
        detail=(said,),
    )


def _joined(x: Tensor, parts: list[Certificates]) -> Certificates:
    candidates = [
        x[i : i + 1] if part.candidates is None else part.candidates for i, part in enumerate(parts)
    ]
    return Certificates(
        outcome=tuple(part.outcome[0] for part in parts),
        method=tuple(part.method[0] for part in parts),
        lower=torch.cat([part.lower.cpu() for part in parts]),
        seconds=torch.cat([part.seconds.cpu() for part in parts]),
        work=torch.cat([part.work.cpu() for part in parts]),
        detail=tuple(part.detail[0] for part in parts),
        candidates=torch.cat(candidates),
    )


def ending(outcome: Outcome, lower: float, detail: str) -> Ending:
    """What an outcome says of its sample, a counterexample aside.

    A proof without a positive, finite bound is an error, whatever the engine says.
    """
    if outcome == Outcome.CERTIFIED and 0 < lower < math.inf:
        return Ending(Verdict.CERTIFIED, detail)
    if outcome == Outcome.CERTIFIED:
        return Ending(Verdict.ERROR, f"called certified, but its bound is {lower:g}")
    if outcome == Outcome.ERROR:
        return Ending(Verdict.ERROR, detail or "the method failed and does not say why")
    return Ending(None, detail, _REASONS.get(outcome, Reason.UNCONFIRMED))


def _judge(task: Task, x: Tensor, y: Tensor, ids: Tensor, found: Certificates) -> Judged:
    named = [outcome == Outcome.FALSIFIED for outcome in found.outcome]
    candidates = x if found.candidates is None else found.candidates
    check = recheck(task.classifier, task.precise, x, candidates, y, task.threat)
    broken = check.broken & torch.tensor(named, device=x.device)
    hit, lower = broken.cpu().numpy(), found.lower.cpu().numpy()
    endings = [
        _of_candidate(check, i) if named[i] else ending(outcome, float(low), detail)
        for i, (outcome, low, detail) in enumerate(
            zip(found.outcome, lower, found.detail, strict=True)
        )
    ]
    failed = np.array([end.verdict == Verdict.ERROR for end in endings])
    bound = np.where(np.isfinite(lower) & ~failed, lower, np.nan)
    return Judged(
        rows=frame_of(
            ids,
            y,
            verdict=[None if end.verdict is None else str(end.verdict) for end in endings],
            prediction=whole_where(hit, check.prediction),
            margin=np.where(hit, check.margin.cpu().numpy(), np.nan),
            margin64=np.where(hit, check.margin64.cpu().numpy(), np.nan),
            distance=np.where(hit, check.distance.cpu().numpy(), np.nan),
            bound=bound,
            method=list(found.method),
            work=found.work.cpu().numpy(),
            seconds=found.seconds.cpu().numpy(),
            detail=[end.text for end in endings],
        ),
        broken=broken,
        adversarial=candidates,
    )


def _of_candidate(check: Recheck, i: int) -> Ending:
    """What the re-check of a counterexample gives."""
    if bool(check.broken[i]):
        return Ending(Verdict.BROKEN)
    if not bool(check.legal[i]):
        said = "the counterexample is outside of the threat model"
    elif bool(check.missed[i]):
        said = "the counterexample is misclassified in float32, not in float64"
    else:
        said = "the counterexample is classified rightly"
    return Ending(None, said, Reason.UNCONFIRMED)

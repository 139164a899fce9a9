"""Small honest provers, and dishonest ones, for the tests of the harness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks.threat import ThreatModel
from certify.result import Certificates, Outcome
from robustbench_c.evaluation.certifying import METHODS, Budget

ROUNDING = 1e-5
LOOSENESS = dict(zip(METHODS, (1.0, 0.5, 0.3, 0.15, 0.0), strict=True))
"""What each method of `LinearCertifier` gives away, as a share of the exact bound's way down."""


@dataclass(eq=False)
class LinearCertifier:
    """Exact bounds of `nn.Linear` over a box, made looser for the cheaper methods."""

    model: nn.Module
    calls: list[tuple[str, tuple[int, ...], Budget]]

    @classmethod
    def make(cls, model: nn.Module, x: Tensor) -> LinearCertifier:
        assert x.shape[0] == 1
        return cls(model, [])

    def certify(
        self,
        method: str,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        threat: ThreatModel,
        budget: Budget,
        seed: int,
    ) -> Certificates:
        self.calls.append((method, tuple(ids.tolist()), budget))
        weight, bias = self.model.weight.double(), self.model.bias.double()
        low, high = (end.double().flatten(1) for end in threat.bounds(x))
        centre, radius = (low + high) / 2, (high - low) / 2
        gaps = weight[y][:, None] - weight[None]
        value = torch.einsum("nkd,nd->nk", gaps, centre) + bias[y][:, None] - bias
        reach = torch.einsum("nkd,nd->nk", gaps.abs(), radius)
        own = y[:, None]
        clean = value.scatter(1, own, torch.inf)
        exact, rival = (clean - reach).min(1)
        worst = centre - radius * gaps[torch.arange(len(x)), rival].sign()
        lower = (exact - LOOSENESS[method] * reach.amax(1)).detach()
        outcome = [_outcome(method, float(value)) for value in lower]
        n = len(x)
        return Certificates(
            outcome=tuple(outcome),
            method=(method,) * n,
            lower=lower.detach(),
            seconds=torch.full((n,), 0.001, dtype=torch.float64),
            work=torch.full((n,), 3 if method == "complete" else 1),
            detail=("",) * n,
            candidates=worst.float().clamp(*threat.bounds(x)).view_as(x).detach()
            if method == "complete"
            else None,
        )


def _outcome(method: str, lower: float) -> Outcome:
    if lower > ROUNDING:
        return Outcome.CERTIFIED
    if lower > 0:
        return Outcome.ROUNDING
    return Outcome.FALSIFIED if method == "complete" else Outcome.UNKNOWN


class IntervalCertifier(LinearCertifier):
    """Interval bounds of a Sequential of Linear and ReLU; the same for each method."""

    def certify(self, method, x, y, ids, threat, budget, seed):
        low, high = (end.double().flatten(1) for end in threat.bounds(x))
        for layer in self.model:
            if isinstance(layer, nn.ReLU):
                low, high = low.relu(), high.relu()
                continue
            weight, bias = layer.weight.double(), layer.bias.double()
            middle, radius = (low + high) / 2, (high - low) / 2
            middle, radius = middle @ weight.T + bias, radius @ weight.abs().T
            low, high = middle - radius, middle + radius
        lower = low.gather(1, y[:, None])[:, 0] - high.scatter(1, y[:, None], -torch.inf).amax(1)
        lower = lower.detach()
        n = len(x)
        return Certificates(
            tuple(_outcome("ibp", float(value)) for value in lower),
            (method,) * n,
            lower,
            torch.full((n,), 0.001, dtype=torch.float64),
            torch.ones(n, dtype=torch.int64),
            ("",) * n,
        )


def changed(change: Callable[..., Certificates]) -> Callable[[nn.Module, Tensor], LinearCertifier]:
    """A linear certifier whose answers go through `change(found, method, x, ids)`."""

    class Changed(LinearCertifier):
        def certify(self, method, x, y, ids, *rest):
            return change(super().certify(method, x, y, ids, *rest), method, x, ids)

    return Changed.make


def only(name: str, change: Callable[..., Certificates]):
    """Change the answers of one method."""
    return changed(lambda found, method, x, ids: change(found, x, ids) if method == name else found)


def outcomes(found: Certificates, outcome: Outcome, **more: object) -> Certificates:
    """The same outcome for every sample."""
    return replace(found, outcome=(outcome,) * len(found.outcome), **more)

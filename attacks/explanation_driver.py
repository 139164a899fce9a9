"""The judge of attacked explanations: every find is measured afresh, in code of its own.

As in `attacks.driver` the norm is measured in float64 on the float32 input, the box is compared bit
for bit, and the model is asked again, in float32 and in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks import memory
from attacks.classifier import CPU_TILES, CUDA_TILES, TiledClassifier, exact_passes
from attacks.driver import distances, inside_box
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, explain
from attacks.threat import ThreatModel, WeightBudget


@dataclass(eq=False)
class ExplanationRecheck:
    """What holds of a batch of allegedly bent explanations; (n,) but for the last two.

    Attributes:
        legal: Input inside the box and within eps, immutable features unchanged; weights within
            gamma.
        kept: The explained class is predicted in float32, by finite logits.
        kept64: The same in float64; true where the model has no float64 form.
        distance: Distance of the explanations, both in float32; float64.
        distance64: The same, both in float64; NaN where the model has no float64 form.
        clean: The explanations in float32 that `distance` is measured from, (n, *shape).
        moved: Those at the alleged points, likewise.
    """

    legal: Tensor
    kept: Tensor
    kept64: Tensor
    distance: Tensor
    distance64: Tensor
    clean: Tensor
    moved: Tensor

    @property
    def lower(self) -> Tensor:
        """A distance that was reached: the smaller of the two; 0 where the point does not count."""
        both = torch.fmin(self.distance, self.distance64)
        counts = self.legal & self.kept & self.kept64 & both.isfinite()
        return torch.where(counts, both, 0.0)


def recheck_explanations(
    model: nn.Module,
    precise: nn.Module | None,
    x: Tensor,
    adversarial: Tensor,
    target: Tensor,
    threat: ThreatModel | None,
    explanation: Explanation,
    criterion: Criterion,
    *,
    other: Tensor | None = None,
    budget: WeightBudget | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> ExplanationRecheck:
    """Measure allegedly bent explanations afresh.

    Args:
        model: In float32 and eval mode.
        precise: The same in float64 (`attacks.driver.in_float64`), or None.
        x: Clean samples, float32, (n, *shape), n >= 1.
        adversarial: Alleged inputs, float32, like `x`.
        target: The class that is explained, int64, (n,).
        threat: What the attacker was allowed to do to an input; None for nothing.
        explanation: Which.
        criterion: The measure.
        other: The class that the margin is over, int64, (n,); for margins alone.
        budget: What the attacker was allowed to do to the weights; None for nothing.
        weights: Alleged models, by parameter, (n, *shape of the parameter); None for the given one.
    """
    if threat is None:
        legal = (adversarial == x).flatten(1).all(1)
    else:
        legal = inside_box(adversarial, threat) & (distances(x, adversarial, threat) <= threat.eps)
        if threat.immutable is not None:
            legal &= ((adversarial == x) | ~threat.immutable).flatten(1).all(1)
    if weights is not None:
        legal &= _within(model, weights, budget)

    def measure(net: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kind = next((w.dtype for w in net.parameters()), x.dtype)
        clean, moved = x.to(kind), adversarial.to(kind)
        v, _ = _explained(net, clean, target, explanation, other)
        if weights is None:
            w, logits = _explained(net, moved, target, explanation, other)
        else:
            w, logits = _one_by_one(net, weights, moved, target, explanation, other)
        kept = (logits.argmax(1) == target) & logits.isfinite().all(1)
        return kept, criterion.distance(v, w), v, w

    def both() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        return measure(model), None if precise is None else measure(precise)

    with exact_passes():
        (kept, distance, v, w), again = memory.halving(both, "the judge's explanations", x.device)
        kept64, distance64 = torch.ones_like(kept), torch.full_like(distance, torch.nan)
        if again is not None:
            kept64, distance64, _, _ = again
    return ExplanationRecheck(legal, kept, kept64, distance, distance64, v, w)


def _explained(
    net: nn.Module,
    x: Tensor,
    target: Tensor,
    explanation: Explanation,
    other: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Explanations and logits, in tiles of one size."""
    size = memory.room((CUDA_TILES if x.is_cuda else CPU_TILES)[0])
    found, logits = [], []
    for rows in torch.arange(len(x), device=x.device).split(size):  # type: ignore[no-untyped-call]
        padded = TiledClassifier.pad(rows, size)
        over = None if other is None else other[padded]
        v = explain(net, x[padded], target[padded], explanation, over)
        found.append(v.detach()[: len(rows)])
        with torch.no_grad():
            logits.append(net(x[padded])[: len(rows)])
    return torch.cat(found), torch.cat(logits)


def _one_by_one(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    target: Tensor,
    explanation: Explanation,
    other: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same for samples with models of their own: a copy of the model takes one by one."""
    moved, rows = copy.deepcopy(net), []
    for i in range(len(x)):
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter.copy_(weights[name][i])
        over = None if other is None else other[i : i + 1]
        rows.append(_explained(moved, x[i : i + 1], target[i : i + 1], explanation, over))
    return torch.cat([v for v, _ in rows]), torch.cat([z for _, z in rows])


def _within(model: nn.Module, weights: Mapping[str, Tensor], budget: WeightBudget | None) -> Tensor:
    """Whether every parameter is within gamma, measured in float64, bool (n,)."""
    gamma = 0.0 if budget is None else budget.gamma
    legal = torch.ones(len(next(iter(weights.values()))), dtype=torch.bool)
    for name, parameter in model.named_parameters():
        own = parameter.detach().double()
        gap = (weights[name].double() - own).abs()
        radius = gamma * own.abs() if budget is None or budget.relative else gamma
        legal = legal.to(own.device) & (gap <= radius).flatten(1).all(1)
    return legal

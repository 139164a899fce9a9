"""Attacks on explanations: how far can one be bent while the prediction stays?

Projected gradient ascent on the distance between explanations, after Ghorbani et al. (AAAI 2019)
and Dombrowski et al. (NeurIPS 2019) for inputs, and Heo et al. (NeurIPS 2019) for weights. Where a
ReLU has no second derivative, a net with softplus shows the way; what counts is read off the net
itself. A point counts where the class that is explained is still predicted. Where it is not, the
step raises that class instead: this keeps to the border of its region, and needs no weight between
two aims.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks import memory
from attacks.classifier import CPU_TILES, CUDA_TILES, exact_passes
from attacks.errors import AttackError
from attacks.explained import ExplainedModel
from attacks.explanation_config import ExplanationAttackConfig
from attacks.explanation_driver import ExplanationRecheck, recheck_explanations
from attacks.explanation_measures import Criterion
from attacks.explanation_result import ExplanationAttackResult
from attacks.explanation_search import Search
from attacks.explanations import Explanation, seeds
from attacks.randomness import stream_keys
from attacks.result import Progress
from attacks.threat import ThreatModel, WeightBudget

__all__ = [
    "ExplanationAttackConfig",
    "ExplanationAttackResult",
    "ExplanationRecheck",
    "attack_explanations",
    "recheck_explanations",
]

_MODELS_BYTES = 256 << 20
"""Memory for the models of one tile."""


def attack_explanations(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    ids: Tensor,
    threat: ThreatModel | None,
    explanation: Explanation,
    criterion: Criterion,
    config: ExplanationAttackConfig,
    seed: int,
    *,
    other: Tensor | None = None,
    budget: WeightBudget | None = None,
    toward: Tensor | None = None,
    progress: Progress | None = None,
) -> ExplanationAttackResult:
    """Bend the explanation of each sample as far as can be found, its prediction kept.

    Args:
        model: In eval mode.
        x: Samples inside the box, float32, (n, *shape), on the model's device.
        target: The class that is explained, int64, (n,): what the model predicts for the sample.
        ids: Sample ids that key the random numbers, int64, (n,).
        threat: What the attacker may do to an input; None for nothing.
        explanation: Which.
        criterion: The measure that is raised, and the threshold beyond which a sample is bent.
        config: Steps, restarts and so on.
        seed: Seed of the random numbers.
        other: The class that the margin is over, int64, (n,); for margins alone.
        budget: What the attacker may do to the weights; None for nothing. Every sample has a model
            of its own.
        toward: Maps to come near to, like `x`, instead of going far from the clean explanation.
        progress: Called with (samples finished, samples bent) as they change.

    Returns:
        What was found. Samples do not influence each other: any subset, in any order, gives the
        same. The caller re-checks it (`recheck_explanations`) before it counts.

    Raises:
        AttackError: Settings do not fit each other or the samples.
        ClassifierError: The model is in training mode, or is no classifier.
        TooLittleMemoryError: Memory runs out with one sample.
    """
    _check(x, target, threat, criterion, budget, toward)
    if len(x) == 0:
        return ExplanationAttackResult.empty(x, None)

    def work() -> ExplanationAttackResult:
        explained = ExplainedModel(model, x, explanation, config.surrogate)
        limits = None
        if budget is not None:
            limits = {name: budget.bounds(w) for name, w in explained.weights.items()}
        result = ExplanationAttackResult.empty(x, None if limits is None else explained.weights)
        radius = threat.eps if threat is not None else budget.gamma if budget is not None else 0.0
        search = Search(
            explained,
            x,
            target,
            seeds(explanation, target, explained.classes, other).to(x),
            threat,
            limits,
            toward,
            criterion,
            config,
            config.first_step(radius),
            memory.room(_tile(explained, x, limits is not None)),
            result,
        )
        streams = [
            stream_keys(seed, "explanation", ids.tolist(), restart).to(x.device)
            for restart in range(config.restarts)
        ]
        group = search.tile * (8 if limits is None else 1)
        done = 0
        for rows in torch.arange(len(x), device=x.device).split(group):  # type: ignore[no-untyped-call]
            search.look_at_clean(rows)
            for restart, keys in enumerate(streams):
                search.run(rows, restart, keys)
            done += len(rows)
            if progress is not None:
                progress(done, int(result.found.sum()))
        return result

    with exact_passes():
        return memory.halving(work, "an attack on explanations", x.device)


def _check(
    x: Tensor,
    target: Tensor,
    threat: ThreatModel | None,
    criterion: Criterion,
    budget: WeightBudget | None,
    toward: Tensor | None,
) -> None:
    if threat is None and budget is None:
        raise AttackError("there is nothing to attack: give a threat model or a weight budget")
    shape = tuple(x.shape[1:])
    if threat is not None:
        threat.check_shape(shape)
    criterion.check_shape(shape)
    if len(target) != len(x):
        raise AttackError(f"{len(x)} samples need as many explained classes, not {len(target)}")
    if toward is not None and toward.shape != x.shape:
        raise AttackError(
            f"the maps to come near to have shape {tuple(toward.shape)}: give {tuple(x.shape)}"
        )


def _tile(explained: ExplainedModel, x: Tensor, models: bool) -> int:
    """Points of one pass: it depends on the model and the device alone."""
    tile = (CUDA_TILES if x.is_cuda else CPU_TILES)[0]
    if not models:
        return tile
    size = sum(w.numel() for w in explained.weights.values())
    # models of their own share no work: on a CPU few at a time are as fast as many
    return max(1, min(tile if x.is_cuda else 8, _MODELS_BYTES // (24 * max(1, size))))

"""Attacks on explanations: how far can one be bent while the prediction stays?

Projected gradient ascent on the distance between explanations, after Ghorbani et al. (AAAI 2019)
and Dombrowski et al. (NeurIPS 2019) for inputs, and Heo et al. (NeurIPS 2019) for weights. Where a
ReLU has no second derivative, a net with softplus shows the way; what counts is read off the net
itself. A point counts where the class that is explained is still predicted. Where it is not, the
step raises that class instead: this keeps to the border of its region, and needs no weight between
two aims.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.balls import Ball
from attacks.classifier import CPU_TILES, CUDA_TILES, exact_passes
from attacks.errors import AttackError
from attacks.explained import ExplainedModel, Points, Weights
from attacks.explanation_driver import ExplanationRecheck, recheck_explanations
from attacks.explanation_losses import bend
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, seeds
from attacks.losses import margin
from attacks.randomness import stream_keys, uniform
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


@dataclass(frozen=True)
class ExplanationAttackConfig:
    """Settings; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of one restart, >= 1.
        restarts: Independent runs from random points, >= 1.
        step_size: Length of the first step in units of eps (of gamma, where weights alone may
            change), > 0; None is a quarter of it. Steps shrink linearly to a tenth.
        surrogate: Sharpness beta of the softplus that stands for ReLU while searching; None
            searches on the net itself, where a gradient has none of its own.
        stop: Whether a sample is left alone once it is bent beyond the criterion's threshold.
            Otherwise the largest distance is looked for to the end.
    """

    steps: int = 50
    restarts: int = 1
    step_size: float | None = None
    surrogate: float | None = 20.0
    stop: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise AttackError(
                f"steps is {self.steps} and restarts {self.restarts}: both must be at least 1"
            )
        for name in ("step_size", "surrogate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise AttackError(f"{name} is {value}: it must be positive and finite")


@dataclass(eq=False)
class ExplanationAttackResult:
    """Per-sample findings, not yet re-checked; what was found is the point that bends most.

    Attributes:
        adversarial: float32, (n, *shape); the clean sample where no point was further.
        weights: The models that go with it, by parameter, (n, *shape of the parameter); the given
            ones where no point was further. None unless weights may change. They are not stored
            with a run: the same call with the sample's id finds the same ones, bit for bit.
        distance: float64, (n,), `criterion.distance` there, on the net itself and in float32.
        found: bool, (n,), the distance exceeds the criterion's threshold.
        restart: int64, (n,), the restart that found it, -1 for none.
        iteration: int64, (n,), the step that found it (0: the starting point), -1 for none.
        forwards: int64, (n,), forward passes the search needed for the sample.
        backwards: int64, (n,), backward passes it needed; that of a gradient counts as two.
        not_finite: bool, (n,), a logit, an explanation or a gradient was NaN or Inf on the way.
        seconds: float64, (n,), the sample's share of the time of its passes.
    """

    adversarial: Tensor
    weights: Weights | None
    distance: Tensor
    found: Tensor
    restart: Tensor
    iteration: Tensor
    forwards: Tensor
    backwards: Tensor
    not_finite: Tensor
    seconds: Tensor

    @classmethod
    def empty(cls, x: Tensor, weights: Weights | None) -> ExplanationAttackResult:
        """Nothing found, nothing spent."""
        n, device = len(x), x.device

        def full(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((n,), value, dtype=dtype, device=device)

        own = None
        if weights is not None:
            own = {k: w.expand(n, *w.shape).clone() for k, w in weights.items()}
        return cls(
            adversarial=x.clone(),
            weights=own,
            distance=full(0, torch.float64),
            found=full(0, torch.bool),
            restart=full(-1, torch.int64),
            iteration=full(-1, torch.int64),
            forwards=full(0, torch.int64),
            backwards=full(0, torch.int64),
            not_finite=full(0, torch.bool),
            seconds=full(0, torch.float64),
        )


@dataclass(eq=False)
class _Look:
    """What is seen at the points of a tile."""

    distance: Tensor  # float64, of the points that count; -1 for others
    strange: Tensor
    gradients: list[Tensor]


@dataclass(eq=False)
class _Problem:
    """What stays the same while the attack runs."""

    model: ExplainedModel
    x: Tensor
    target: Tensor
    seed: Tensor
    threat: ThreatModel | None
    limits: dict[str, tuple[Tensor, Tensor]] | None
    criterion: Criterion
    config: ExplanationAttackConfig
    share: float  # first step, in parts of the radius
    tile: int
    clean: Tensor
    smooth: Tensor  # clean, as the net that is searched on sees it

    def look(self, rows: Tensor, points: Points, last: bool) -> _Look:
        """Evaluate the points of one tile; where it is not the last time, with gradients."""
        points, leaves = points.tracked(self.threat is not None)
        target, seed = self.target[rows], self.seed[rows]
        with torch.enable_grad():
            logits = self.model.logits(points)
            value = self.model.explain(points, seed)
            kept = (logits.argmax(1) == target) & logits.isfinite().all(1)
            distance = self.criterion.distance(self.clean[rows], value.detach())
            strange = ~(logits.isfinite().all(1) & distance.isfinite())
            distance = torch.where(kept & distance.isfinite(), distance, -1.0)
            if last:
                return _Look(distance, strange, [])
            now = value if self.model.beta is None else self.model.explain(points, seed, True)
            aim = bend(self.criterion, self.smooth[rows], now)
            loss = torch.where(kept, aim, margin(logits, target)).sum()
            gradients: list[Tensor] = [torch.zeros_like(leaf) for leaf in leaves]
            if loss.requires_grad:
                found = torch.autograd.grad(loss, leaves, allow_unused=True)
                gradients = [z if g is None else g for g, z in zip(found, gradients, strict=True)]
        for gradient in gradients:
            strange = strange | ~gradient.flatten(1).isfinite().all(1)
        return _Look(distance, strange, gradients)

    def start(self, rows: Tensor, keys: Tensor) -> Points:
        """A random legal point for each row: inputs in the ball, weights in their box."""
        x, drawn = self.x[rows], 0
        if self.threat is not None:
            ball = Ball.around(self.threat, x)
            x, drawn = ball.start(keys), 4 * x[0].numel()  # no norm draws more numbers
        if self.limits is None:
            return Points(x)
        weights = {}
        for name, (low, high) in self.limits.items():
            count = low.numel()
            u = uniform(keys, count, drawn).view(len(rows), *low.shape)
            drawn += count
            weights[name] = (low + (high - low) * u).clamp(low, high)
        return Points(x, weights)

    def step(self, rows: Tensor, points: Points, gradients: list[Tensor], share: float) -> Points:
        """Ascend by a share of the radius, and stay legal."""
        x, rest = points.x, list(gradients)
        if self.threat is not None:
            ball = Ball.around(self.threat, self.x[rows])
            x = ball.step(x, rest.pop(0), share * self.threat.eps)
        if self.limits is None or points.weights is None:
            return Points(x)
        weights = {}
        for (name, w), gradient in zip(points.weights.items(), rest, strict=True):
            low, high = self.limits[name]
            moved = w + (high - low) * (0.5 * share) * gradient.sign()  # the sign of NaN is 0
            weights[name] = torch.minimum(torch.maximum(moved, low), high)
        return Points(x, weights)


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
        progress: Called with (samples finished, samples bent) as they change.

    Returns:
        What was found. Samples do not influence each other: any subset, in any order, gives the
        same. The caller re-checks it (`recheck_explanations`) before it counts.

    Raises:
        AttackError: Settings do not fit each other or the samples.
        ClassifierError: The model is in training mode, or is no classifier.
    """
    if threat is None and budget is None:
        raise AttackError("there is nothing to attack: give a threat model or a weight budget")
    if threat is not None:
        threat.check_shape(tuple(x.shape[1:]))
    criterion.check_shape(tuple(x.shape[1:]))
    if len(x) == 0:
        return ExplanationAttackResult.empty(x, None)
    with exact_passes():
        explained = ExplainedModel(model, x, explanation, config.surrogate)
        limits = None
        if budget is not None:
            limits = {name: budget.bounds(w) for name, w in explained.weights.items()}
        result = ExplanationAttackResult.empty(x, None if limits is None else explained.weights)
        tile = _tile(explained, x, limits is not None)
        radius = threat.eps if threat is not None else budget.gamma if budget is not None else 1.0
        share = 0.25 if config.step_size is None else config.step_size / max(radius, 1e-300)
        problem = _Problem(
            explained,
            x,
            target,
            seeds(explanation, target, explained.classes, other).to(x),
            threat,
            limits,
            criterion,
            config,
            share,
            tile,
            torch.empty_like(x),
            torch.empty_like(x),
        )
        streams = [
            stream_keys(seed, "explanation", ids.tolist(), r).to(x.device)
            for r in range(config.restarts)
        ]
        group = tile if limits is not None else 8 * tile
        done = 0
        for rows in torch.arange(len(x), device=x.device).split(group):  # type: ignore[no-untyped-call]
            _look_at_clean(problem, rows, result)
            for restart, keys in enumerate(streams):
                _run(problem, rows, restart, keys, result)
            done += len(rows)
            if progress is not None:
                progress(done, int(result.found.sum()))
    return result


def _tile(explained: ExplainedModel, x: Tensor, models: bool) -> int:
    tile = (CUDA_TILES if x.is_cuda else CPU_TILES)[0]
    if not models:
        return tile
    size = sum(w.numel() for w in explained.weights.values())
    return max(1, min(tile, _MODELS_BYTES // (24 * size)))


def _padded(rows: Tensor, size: int) -> Tensor:
    return torch.cat([rows, rows[:1].expand(size - len(rows))])


def _in_tiles(rows: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Parts of the places 0 ... len(rows) - 1, each with the rows there padded to `size`."""
    places = torch.arange(len(rows), device=rows.device)
    return [(some, _padded(some, size)) for some in places.split(size)]  # type: ignore[no-untyped-call]


def _look_at_clean(problem: _Problem, rows: Tensor, result: ExplanationAttackResult) -> None:
    """Explain the clean samples; where nothing moves, features may be among the first already."""
    model = problem.model
    for some, padded in _in_tiles(rows, problem.tile):
        mine, tile = rows[some], rows[padded]
        points = Points(problem.x[tile])
        with torch.no_grad():
            value = model.explain(points, problem.seed[tile])
            smooth = value
            if model.beta is not None:
                smooth = model.explain(points, problem.seed[tile], True)
            distance = problem.criterion.distance(value, value)[: len(mine)]
        problem.clean[mine], problem.smooth[mine] = value[: len(mine)], smooth[: len(mine)]
        finite = distance.isfinite()
        result.not_finite[mine] = ~finite
        result.distance[mine] = torch.where(finite, distance, 0.0)
        result.found[mine] = problem.criterion.bent(result.distance[mine])
        spent = model.passes * (1 if model.beta is None else 2)
        result.forwards[mine] += spent
        result.backwards[mine] += spent


def _run(
    problem: _Problem, rows: Tensor, restart: int, keys: Tensor, result: ExplanationAttackResult
) -> None:
    """One restart of some samples, in step."""
    config, model = problem.config, problem.model
    if config.stop:
        rows = rows[~result.found[rows]]
    if not len(rows):
        return
    parts = [
        problem.start(rows[padded], keys[rows[padded]])[: len(some)]
        for some, padded in _in_tiles(rows, problem.tile)
    ]
    points = _join(parts)
    for iteration in range(config.steps + 1):
        started = time.perf_counter()
        last = iteration == config.steps
        share = problem.share * (1 - 0.9 * iteration / config.steps)
        parts = []
        for some, padded in _in_tiles(rows, problem.tile):
            at = points[padded]
            look = problem.look(rows[padded], at, last)
            _record(rows[some], at, look, restart, iteration, problem, result)
            if not last:
                parts.append(problem.step(rows[padded], at, look.gradients, share)[: len(some)])
        again = 0 if last else 1 if model.beta is None else 2
        result.forwards[rows] += 1 + model.passes * max(1, again)
        result.backwards[rows] += model.passes * max(1, again) + (
            0 if last else 2 * model.passes + 1
        )
        result.seconds[rows] += (time.perf_counter() - started) / len(rows)
        if last:
            return
        points = _join(parts)
        if config.stop:
            left = ~result.found[rows]
            rows, points = rows[left], points[left]
            if not len(rows):
                return


def _join(parts: list[Points]) -> Points:
    first = parts[0].weights
    weights = None
    if first is not None:
        weights = {k: torch.cat([p.weights[k] for p in parts if p.weights]) for k in first}
    return Points(torch.cat([p.x for p in parts]), weights)


def _record(
    rows: Tensor,
    at: Points,
    look: _Look,
    restart: int,
    iteration: int,
    problem: _Problem,
    result: ExplanationAttackResult,
) -> None:
    """Note what was seen at the first points of a tile, one for each of `rows`."""
    count = len(rows)
    result.not_finite[rows] |= look.strange[:count]
    better = (look.distance[:count] > result.distance[rows]).nonzero()[:, 0]
    if not len(better):
        return
    mine = rows[better]
    result.adversarial[mine] = at.x[better].detach()
    if result.weights is not None and at.weights is not None:
        for name, w in at.weights.items():
            result.weights[name][mine] = w[better].detach()
    result.distance[mine] = look.distance[better]
    result.found[mine] = problem.criterion.bent(look.distance[better])
    result.restart[mine] = restart
    result.iteration[mine] = iteration

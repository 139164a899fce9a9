"""The ascent that bends explanations: what is looked at, where it starts, and how it moves.

All samples of a group go in step, each pass in tiles of one size, padded, so that no sample's
bits depend on the others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.explained import ExplainedModel, Points
from attacks.explanation_config import ExplanationAttackConfig
from attacks.explanation_losses import bend, centre_moved, changed, flips, likeness
from attacks.explanation_measures import Criterion
from attacks.explanation_result import ExplanationAttackResult
from attacks.losses import margin
from attacks.randomness import uniform
from attacks.threat import ThreatModel

_FLIP_STEPS = 3
Limits = dict[str, tuple[Tensor, Tensor]]
"""Smallest and largest legal value of each parameter."""


@dataclass(eq=False)
class _Look:
    """What is seen at the points of a tile; all (tile,) but the gradients."""

    counts: Tensor  # the prediction is kept, and all is finite
    strange: Tensor
    distance: Tensor
    to_map: Tensor
    gradients: list[Tensor]

    @property
    def score(self) -> Tensor:
        """Larger is better; -inf where a point does not count."""
        found = torch.where(self.to_map.isnan(), self.distance, -self.to_map)
        return torch.where(self.counts, found, -torch.inf)


@dataclass(eq=False)
class Search:
    """An attack on some samples.

    Attributes:
        model: The model and the explanation.
        x: Samples, (n, *shape).
        target: The class that is explained, int64, (n,).
        seed: Weights of the logits, (n, classes).
        threat: What inputs may become, or None.
        limits: What weights may become, or None.
        toward: Maps to come near to, like `x`, or None.
        criterion: What counts.
        config: Steps, restarts and so on.
        first_step: Length of the first step in parts of eps and of gamma.
        tile: Points of one pass.
        result: What is known so far.
    """

    model: ExplainedModel
    x: Tensor
    target: Tensor
    seed: Tensor
    threat: ThreatModel | None
    limits: Limits | None
    toward: Tensor | None
    criterion: Criterion
    config: ExplanationAttackConfig
    first_step: float
    tile: int
    result: ExplanationAttackResult
    clean: Tensor = field(init=False)  # explanations
    logits: Tensor = field(init=False)
    best: Tensor = field(init=False)  # score, float64

    def __post_init__(self) -> None:
        self.clean, self.logits = torch.empty_like(self.x), torch.empty_like(self.seed)
        self.best = torch.full((len(self.x),), -torch.inf, dtype=torch.float64).to(self.x.device)

    def look_at_clean(self, rows: Tensor) -> None:
        """Explain the clean samples, which are the first points that count."""
        started, model = time.perf_counter(), self.model
        for some, padded in self._tiles(rows):
            mine, points = rows[some], self._own(rows[padded])
            seed = self.seed[rows[padded]]
            with torch.no_grad():
                value = model.explain(points, seed)
                logits = model.logits(points)
            self.clean[mine], self.logits[mine] = value[: len(mine)], logits[: len(mine)]
            look = self._judge(rows[padded], logits, value)
            self._note(mine, points, look, -1, -1)
        self.result.count(rows, model.passes + 1, model.passes, time.perf_counter() - started)

    def run(self, rows: Tensor, restart: int, keys: Tensor) -> None:
        """One restart of some samples; `keys` are the streams of random numbers of all."""
        config, model = self.config, self.model
        if config.stop:
            rows = rows[~self.result.found[rows]]
        if not len(rows):
            return
        points = self._start(rows, keys, flipped=restart % 2 == 0)
        for iteration in range(config.steps + 1):
            started = time.perf_counter()
            last = iteration == config.steps
            share = self.first_step * (1 - 0.9 * iteration / config.steps)
            moved = []
            for some, padded in self._tiles(rows):
                at = points[padded]
                look = self._look(rows[padded], at, last)
                self._note(rows[some], at, look, restart, iteration)
                if not last:
                    step = self._step(rows[padded], at, look.gradients, share)
                    moved.append(step[: len(some)])
            passes = model.passes * (2 if model.beta and not last else 1)
            again = 0 if last else 2 * model.passes + 1
            self.result.count(rows, 1 + passes, passes + again, time.perf_counter() - started)
            if last:
                return
            points = Points.join(moved)
            if config.stop:
                left = ~self.result.found[rows]
                rows, points = rows[left], points[left]
                if not len(rows):
                    return

    def _tiles(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Parts of the places 0 ... len(rows) - 1, each as it is, and padded to a tile."""
        places = torch.arange(len(rows), device=rows.device)
        parts = places.split(self.tile)  # type: ignore[no-untyped-call]
        return [(p, torch.cat([p, p[:1].expand(self.tile - len(p))])) for p in parts]

    def _judge(self, rows: Tensor, logits: Tensor, value: Tensor) -> _Look:
        distance = self.criterion.distance(self.clean[rows], value)
        to_map = torch.full_like(distance, torch.nan)
        if self.toward is not None:
            to_map = self.criterion.distance(self.toward[rows], value)
        finite = logits.isfinite().all(1) & distance.isfinite()
        kept = logits.argmax(1) == self.target[rows]
        return _Look(kept & finite, ~finite, distance, to_map, [])

    def _look(self, rows: Tensor, points: Points, last: bool) -> _Look:
        """Evaluate the points of one tile; where it is not the last time, with gradients."""
        points, leaves = points.tracked(self.threat is not None)
        with torch.enable_grad():
            logits = self.model.logits(points)
            value = self.model.explain(points, self.seed[rows])
            look = self._judge(rows, logits.detach(), value.detach())
            if last:
                return look
            if self.model.beta:
                value = self.model.explain(points, self.seed[rows], True)
            kept = logits.detach().argmax(1) == self.target[rows]
            aim = torch.where(
                kept, self._aim(rows, logits, value), margin(logits, self.target[rows])
            )
            look.gradients = _gradients(aim.sum(), leaves)
        for gradient in look.gradients:
            look.strange |= ~gradient.flatten(1).isfinite().all(1)
        return look

    def _aim(self, rows: Tensor, logits: Tensor, value: Tensor) -> Tensor:
        if self.toward is not None:
            near = likeness(self.toward[rows], value)
            return near - self.config.keep_logits * changed(self.logits[rows], logits)
        if self.config.aim == "mass-centre":
            return centre_moved(self.clean[rows], value)
        return bend(self.criterion, self.clean[rows], value)

    def _note(
        self, rows: Tensor, points: Points, look: _Look, restart: int, iteration: int
    ) -> None:
        """Keep what is better, of the first points of a tile, one for each of `rows`."""
        count, result = len(rows), self.result
        result.not_finite[rows] |= look.strange[:count]
        better = (look.score[:count] > self.best[rows]).nonzero()[:, 0]
        mine = rows[better]
        self.best[mine] = look.score[better]
        result.distance[mine] = look.distance[better]
        result.to_map[mine] = look.to_map[better]
        result.found[mine] = self.criterion.bent(look.distance[better])
        if iteration >= 0:
            result.record(mine, points[better], restart, iteration)

    def _start(self, rows: Tensor, keys: Tensor, flipped: bool) -> Points:
        """A random legal point for each row, and from there on to where many ReLUs change."""
        parts = []
        for some, padded in self._tiles(rows):
            points = self._random(rows[padded], keys[rows[padded]])
            if flipped and self.limits is None and self.model.beta:
                points = self._flip(rows[padded], points)
            parts.append(points[: len(some)])
        if flipped and self.limits is None and self.model.beta:
            self.result.count(rows, 1 + _FLIP_STEPS, _FLIP_STEPS, 0.0)
        return Points.join(parts)

    def _own(self, rows: Tensor) -> Points:
        """The clean samples; where models may move, each with a copy of the given one.

        It would round otherwise in company, and be a little way off from itself.
        """
        if self.limits is None:
            return Points(self.x[rows])
        own = {k: w.expand(len(rows), *w.shape) for k, w in self.model.weights.items()}
        return Points(self.x[rows], own)

    def _random(self, rows: Tensor, keys: Tensor) -> Points:
        x, drawn = self.x[rows], 0
        if self.threat is not None:
            x = Ball.around(self.threat, x).start(keys)
            drawn = 4 * x[0].numel()  # no norm draws more
        if self.limits is None:
            return Points(x)
        weights = {}
        for name, (low, high) in self.limits.items():
            u = uniform(keys, low.numel(), drawn).view(len(rows), *low.shape)
            drawn += low.numel()
            weights[name] = (low + (high - low) * u).clamp(low, high)
        return Points(x, weights)

    def _flip(self, rows: Tensor, points: Points) -> Points:
        with torch.no_grad():
            clean = self.model.relu_inputs(Points(self.x[rows]))
        for _ in range(_FLIP_STEPS):
            at, leaves = points.tracked(True)
            with torch.enable_grad():
                gradients = _gradients(flips(clean, self.model.relu_inputs(at)), leaves)
            points = self._step(rows, points, gradients, 0.5)
        return points

    def _step(self, rows: Tensor, points: Points, gradients: list[Tensor], share: float) -> Points:
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


def _gradients(aim: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Gradients of a scalar, zero where it does not depend on a leaf."""
    if not aim.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(aim, leaves, allow_unused=True)
    return [torch.zeros_like(z) if g is None else g for g, z in zip(found, leaves, strict=True)]

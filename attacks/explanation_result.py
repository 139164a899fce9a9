"""What an attack on explanations hands back: the point that bends most, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.explained import Points, Weights


@dataclass(eq=False)
class ExplanationAttackResult:
    """Per-sample findings, not yet re-checked.

    What is found is the point that bends most; for an attack towards a map, the one nearest to it.

    Attributes:
        adversarial: float32, (n, *shape); the clean sample where no point was better.
        weights: The models that go with it, by parameter, (n, *shape of the parameter); the given
            ones where no point was better. None unless weights may change. They need not be stored
            with a run: the same call with the sample's id finds the same ones, bit for bit.
        distance: float64, (n,), `criterion.distance` there, on the net itself and in float32.
        found: bool, (n,), the distance exceeds the criterion's threshold.
        to_map: float64, (n,), `criterion.distance` there from the map that is aimed at; NaN
            without one.
        restart: int64, (n,), the restart that found it, -1 for none.
        iteration: int64, (n,), the step that found it (0: the starting point), -1 for none.
        forwards: int64, (n,), forward passes the search needed for the sample.
        backwards: int64, (n,), backward passes it needed; that of an explanation counts as two.
        not_finite: bool, (n,), a logit, an explanation or a gradient was NaN or Inf on the way.
        seconds: float64, (n,), the sample's share of the time of its passes.
    """

    adversarial: Tensor
    weights: Weights | None
    distance: Tensor
    found: Tensor
    to_map: Tensor
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
            to_map=full(torch.nan, torch.float64),
            restart=full(-1, torch.int64),
            iteration=full(-1, torch.int64),
            forwards=full(0, torch.int64),
            backwards=full(0, torch.int64),
            not_finite=full(0, torch.bool),
            seconds=full(0, torch.float64),
        )

    def record(
        self, samples: Tensor, points: Points, restart: int | Tensor, iteration: int
    ) -> None:
        """Note the points that are better than what was known of `samples`."""
        self.adversarial[samples] = points.x.detach()
        for name, w in (points.weights or {}).items():
            if self.weights is not None:
                self.weights[name][samples] = w.detach()
        self.restart[samples] = restart
        self.iteration[samples] = iteration

    def count(self, samples: Tensor, forwards: int, backwards: int, seconds: float) -> None:
        """Add passes, for each of `samples`, and the time of all of them to the books."""
        self.forwards[samples] += forwards
        self.backwards[samples] += backwards
        self.seconds[samples] += seconds / max(1, len(samples))

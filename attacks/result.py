"""What an attack hands back: for each sample the input it found and what the search cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class AttackResult:
    """Per-sample findings, not yet re-checked.

    Attributes:
        adversarial: float32, (n, *shape); the clean sample where nothing was found.
        found: bool, (n,).
        restart: int64, (n,), the restart that found it, -1 for none.
        iteration: int64, (n,), the step that found it (0: the starting point), -1 for none.
        lowest: float32, (n,), smallest margin met on the way (of the true class; towards a target:
            of the others over it), negative once found; infinite where none was.
        forwards: int64, (n,), forward passes the search needed for the sample.
        backwards: int64, (n,), gradients it needed.
        not_finite: bool, (n,), a logit or a gradient was NaN or Inf on the way, at a point that the
            attacker may choose.
        flat: bool, (n,), a gradient was exactly zero on the way: there the search stood still. (One
            that is not finite, where the attacker may not go, counts as zero.)
        rounding: bool, (n,), misclassified on the way, but not beyond rounding.
        timeout: bool, (n,), the time was over before the search was.
        seconds: float64, (n,), the sample's share of the time of its passes.
    """

    adversarial: Tensor
    found: Tensor
    restart: Tensor
    iteration: Tensor
    lowest: Tensor
    forwards: Tensor
    backwards: Tensor
    not_finite: Tensor
    flat: Tensor
    rounding: Tensor
    timeout: Tensor
    seconds: Tensor

    @classmethod
    def empty(cls, x: Tensor) -> AttackResult:
        """Nothing found, nothing spent."""
        n, device = len(x), x.device

        def integers(value: int) -> Tensor:
            return torch.full((n,), value, dtype=torch.int64, device=device)

        return cls(
            adversarial=x.clone(),
            found=torch.zeros(n, dtype=torch.bool, device=device),
            restart=integers(-1),
            iteration=integers(-1),
            lowest=torch.full((n,), torch.inf, device=device),
            forwards=integers(0),
            backwards=integers(0),
            not_finite=torch.zeros(n, dtype=torch.bool, device=device),
            flat=torch.zeros(n, dtype=torch.bool, device=device),
            rounding=torch.zeros(n, dtype=torch.bool, device=device),
            timeout=torch.zeros(n, dtype=torch.bool, device=device),
            seconds=torch.zeros(n, dtype=torch.float64, device=device),
        )

    def record(self, samples: Tensor, inputs: Tensor, restart: Tensor, iteration: Tensor) -> None:
        """Note the inputs that broke `samples`."""
        self.adversarial[samples] = inputs
        self.found[samples] = True
        self.restart[samples] = restart
        self.iteration[samples] = iteration

    def add(self, other: AttackResult, rows: Tensor) -> None:
        """Add what another search found of some of the samples, and its books.

        Args:
            other: About samples that are open here.
            rows: Their places, int64, of the length of `other`.
        """
        hit = other.found
        self.record(rows[hit], other.adversarial[hit], other.restart[hit], other.iteration[hit])
        for name in ("forwards", "backwards", "seconds"):
            getattr(self, name)[rows] += getattr(other, name)
        for name in ("not_finite", "flat", "rounding", "timeout"):
            getattr(self, name)[rows] |= getattr(other, name)
        self.lowest[rows] = torch.minimum(self.lowest[rows], other.lowest)

    def count(
        self,
        samples: Tensor,
        fresh: Tensor,
        moved: Tensor,
        margins: Tensor,
        inside: Tensor,
        gradient: Tensor,
        seconds: Tensor,
    ) -> None:
        """Add one pass to the books.

        Args:
            samples: Sample of each row of the tile, (tile,).
            fresh: Rows whose sample was looked at, bool.
            moved: Rows whose gradient was needed, bool.
            margins: Margin of each row.
            inside: Rows whose point the attacker may choose: the margin of others tells nothing.
            gradient: Gradient of each row, (tile, *shape); (tile, 0) where none was computed.
            seconds: Time of each row, float64.
        """
        known = fresh & margins.isfinite()
        self.forwards.index_add_(0, samples, fresh.long())
        self.backwards.index_add_(0, samples, moved.long())
        self.seconds.index_add_(0, samples, seconds)
        margins = torch.where(known & inside, margins, torch.inf)
        self.lowest.scatter_reduce_(0, samples, margins, "amin")
        pull = gradient.flatten(1).abs().sum(1)
        strange = ((fresh & ~known) | (moved & ~pull.isfinite())) & inside
        self.not_finite.index_fill_(0, samples[strange], True)
        still = (pull == 0) | (~pull.isfinite() & ~inside)
        self.flat.index_fill_(0, samples[moved & still], True)

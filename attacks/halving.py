"""APGD towards every class, by successive halving: short runs first, long ones where they pay.

Which class falls first is not known from the clean logits. A few steps towards each show it, and
the budget of full runs towards all of them is spent on the few that came nearest (successive
halving: Karnin, Koren and Somekh, ICML 2013, for the best arm of a bandit). A choice is made from
the sample's own runs alone, so verdicts do not depend on other samples.

So is when to give up: where a sample's lowest margin has not fallen by a hundredth within a share
of all its passes, its search ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from attacks.apgd import APGDConfig, method_of
from attacks.classifier import TiledClassifier
from attacks.driver import distances
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State, drive
from attacks.losses import LOSSES, LossName, gain, margin
from attacks.problem import Limits, Problem
from attacks.result import AttackResult, Progress
from attacks.threat import ThreatModel

_MOST = 1_000_000
_FALL = 0.01  # of the lowest margin: what counts as one


@dataclass(frozen=True)
class HalvingConfig:
    """Settings; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of a run of the first round, >= 1; of each later one `factor` times
            as many.
        rounds: Rounds, >= 1.
        factor: Of a round's targets, those that came nearest go on: one in `factor`, >= 2.
        loss: Loss of all runs, towards the target.
        patience: Share of the plan's passes, in (0, 1]: a sample's search ends where its lowest
            margin has not fallen by a hundredth for as long; 1: it never does.
    """

    steps: int = 10
    rounds: int = 3
    factor: int = 3
    loss: LossName = "margin"
    patience: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rounds < 1 or self.factor < 2:
            raise AttackError(
                f"steps is {self.steps}, rounds {self.rounds} and factor {self.factor}: they must "
                "be at least 1, 1 and 2"
            )
        if self.rounds > 20 or self.steps * self.factor ** (self.rounds - 1) > _MOST:
            raise AttackError(f"the last of {self.rounds} rounds is of more than {_MOST} steps")
        if self.loss not in LOSSES:
            raise AttackError(f"unknown loss '{self.loss}': use one of {', '.join(LOSSES)}")
        if not 0 < self.patience <= 1:
            raise AttackError(f"patience is {self.patience}: it must be above 0 and at most 1")

    def plan(self, classes: int) -> list[tuple[int, int]]:
        """Targets and gradient steps of a run, round by round."""
        found, targets = [], classes - 1
        for number in range(self.rounds):
            found.append((targets, self.steps * self.factor**number))
            targets = ceil(targets / self.factor)
        return found

    def passes(self, classes: int) -> int:
        """Forward passes of a sample, at most."""
        return sum(targets * (steps + 1) for targets, steps in self.plan(classes))


@dataclass(eq=False)
class _Patience:
    """How long each sample has waited for its lowest margin to fall.

    Attributes:
        most: Passes that it waits at most.
        mark: Margin that the present wait began at, (n,).
        waited: Passes since then, int64, (n,).
    """

    most: int
    mark: Tensor
    waited: Tensor

    def note(self, samples: Tensor, margins: Tensor) -> None:
        """Take down a pass of some samples, none of them twice; a margin of NaN is no fall."""
        fell = margins <= (1 - _FALL) * self.mark[samples]
        self.mark[samples] = torch.where(fell, margins, self.mark[samples])
        self.waited[samples] = torch.where(fell, 0, self.waited[samples] + 1)

    @property
    def over(self) -> Tensor:
        """Samples that have waited for long enough, bool, (n,)."""
        return self.waited >= self.most

    def of(self, rows: Tensor) -> _Patience:
        """The same of some samples."""
        return _Patience(self.most, self.mark[rows], self.waited[rows])


class _Round(Method):
    """One round: APGD, run `k` of a sample towards column `k` of its targets; how near they came.

    Attributes:
        reached: Largest logit of each target less that of the true class, float64, like `targets`.
    """

    def __init__(
        self,
        config: HalvingConfig,
        number: int,
        steps: int,
        targets: Tensor,
        threat: ThreatModel,
        patience: _Patience,
    ) -> None:
        self.patience = patience
        count = targets.shape[1]
        apgd = APGDConfig(steps=steps, loss=config.loss, targets=count)
        self.apgd = method_of(apgd, threat, count + 1, targets)
        self.name, self.runs, self.steps = f"apgd-halving-{number}", count, steps
        self.strays, self.targets = self.apgd.strays, targets
        self.reached = torch.full(
            targets.shape, -torch.inf, dtype=torch.float64, device=targets.device
        )

    def begin(self, lanes: Lanes) -> State:
        """As APGD."""
        return self.apgd.begin(lanes)

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """As APGD."""
        return self.apgd.loss(lanes, logits)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """As APGD; notes how near the target came at points that count."""
        counts, threat = lanes.live, lanes.problem.threat
        if self.strays:
            counts = counts & (distances(lanes.ball.x, lanes.state["point"], threat) <= threat.eps)
        target = self.targets[lanes.sample, lanes.run]
        near = gain(logits, lanes.y, target)[counts].double()
        rows = lanes.sample[counts], lanes.run[counts]
        self.reached[rows] = torch.maximum(self.reached[rows], near.nan_to_num(-torch.inf))
        gaps = margin(logits, lanes.y).double()
        gaps = torch.where(counts & logits.isfinite().all(1), gaps, torch.inf)
        self.patience.note(lanes.sample[lanes.live], gaps[lanes.live])
        self.ended = self.patience.over
        self.apgd.move(lanes, logits, loss, gradient)


def halving(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    config: HalvingConfig,
    seed: int,
    confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> AttackResult:
    """Attack each sample until it breaks or its rounds are over; see `attacks.problem.Problem`."""
    result = AttackResult.empty(x)
    if len(x) == 0:
        return result
    whole = Problem(classifier, x, y, ids, threat, seed, confirm=confirm, limits=limits)
    targets, open_ = whole.ranked, torch.arange(len(x), device=x.device)
    runs, classes = 0, whole.clean.shape[1]
    most = ceil(config.patience * config.passes(classes))
    start = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    patience = _Patience(most, start, torch.zeros_like(open_))
    for number, (count, steps) in enumerate(config.plan(classes)):
        left = None if limits is None else limits.left(open_, result.forwards)
        part = replace(whole, x=x[open_], y=y[open_], ids=ids[open_.cpu()], limits=left)
        this = _Round(config, number, steps, targets[:, :count], threat, patience)
        found = drive(part, this)
        found.restart += runs * found.found  # numbered on from round to round
        result.add(found, open_)
        runs += count
        held = ~found.found & ~patience.over
        nearest = this.reached[held].argsort(dim=1, descending=True, stable=True)
        targets, open_ = this.targets[held].gather(1, nearest), open_[held]
        patience = patience.of(held)
        if progress is not None:
            progress(int(result.found.sum()), int(result.found.sum()))
        if len(open_) == 0:
            break
    if progress is not None:
        progress(len(x), int(result.found.sum()))
    return result

"""APGD towards every class, by successive halving: short runs first, long ones where they pay.

Which class falls first is not known from the clean logits. A few steps towards each show it, and
the budget of full runs towards all of them is spent on the few that came nearest (successive
halving: Karnin, Koren and Somekh, ICML 2013, for the best arm of a bandit). A choice is made from
the sample's own runs alone, so verdicts do not depend on other samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from attacks.apgd import APGD, APGDConfig
from attacks.classifier import TiledClassifier
from attacks.errors import AttackError
from attacks.lanes import Lanes, Problem, drive
from attacks.losses import LOSSES, LossName
from attacks.result import AttackResult, Progress
from attacks.threat import ThreatModel


@dataclass(frozen=True)
class HalvingConfig:
    """Settings; every one of them is part of the protocol.

    Attributes:
        steps: Gradient steps of a run of the first round, >= 1; of each later one `factor` times
            as many.
        rounds: Rounds, >= 1.
        factor: Of a round's targets, those that came nearest go on: one in `factor`, >= 2.
        loss: Loss of all runs, towards the target.
    """

    steps: int = 10
    rounds: int = 3
    factor: int = 3
    loss: LossName = "margin"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rounds < 1 or self.factor < 2:
            raise AttackError(
                f"steps is {self.steps}, rounds {self.rounds} and factor {self.factor}: they must "
                "be at least 1, 1 and 2"
            )
        if self.loss not in LOSSES:
            raise AttackError(f"unknown loss '{self.loss}': use one of {', '.join(LOSSES)}")

    def plan(self, classes: int) -> list[tuple[int, int]]:
        """Targets and gradient steps of a run, round by round."""
        found, targets = [], classes - 1
        for number in range(self.rounds):
            found.append((targets, self.steps * self.factor**number))
            targets = ceil(targets / self.factor)
        return found


class _Round(APGD):
    """One round: run `k` of a sample is towards column `k` of its targets."""

    def __init__(
        self, config: HalvingConfig, number: int, steps: int, targets: Tensor, threat: ThreatModel
    ) -> None:
        apgd = APGDConfig(steps=steps, loss=config.loss, targets=targets.shape[1])
        super().__init__(apgd, threat, targets.shape[1] + 1)
        self.name = f"apgd-halving-{number}"
        self.targets = targets
        self.reached = torch.full(
            targets.shape, -torch.inf, dtype=torch.float64, device=targets.device
        )

    def target(self, lanes: Lanes) -> Tensor:
        """Of the round."""
        return self.targets[lanes.sample, lanes.run]

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Also notes how near each target came: logit of the target less that of the true class."""
        gap = logits.gather(1, self.target(lanes)[:, None]) - logits.gather(1, lanes.y[:, None])
        rows, live = (lanes.sample[lanes.live], lanes.run[lanes.live]), gap[lanes.live, 0].double()
        self.reached[rows] = torch.maximum(self.reached[rows], live.nan_to_num(-torch.inf))
        super().move(lanes, logits, loss, gradient)


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
) -> AttackResult:
    """Attack each sample until it breaks or its rounds are over; see `attacks.lanes.Problem`."""
    result = AttackResult.empty(x)
    if len(x) == 0:
        return result
    whole = Problem(classifier, x, y, ids, threat, seed, confirm=confirm)
    targets, open_ = whole.ranked, torch.arange(len(x), device=x.device)
    for number, (count, steps) in enumerate(config.plan(whole.clean.shape[1])):
        part = replace(whole, x=x[open_], y=y[open_], ids=ids[open_.cpu()])
        this = _Round(config, number, steps, targets[:, :count], threat)
        found = drive(part, this)
        result.add(found, open_)
        left = ~found.found
        nearest = this.reached[left].argsort(dim=1, descending=True, stable=True)
        targets, open_ = this.targets[left].gather(1, nearest), open_[left]
        if progress is not None:
            progress(int(result.found.sum()), int(result.found.sum()))
        if len(open_) == 0:
            break
    if progress is not None:
        progress(len(x), int(result.found.sum()))
    return result

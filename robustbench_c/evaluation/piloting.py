"""The steps of a run tried on a few of its samples, for `estimate`: what they take and leave."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attacks import memory
from attacks.classifier import TiledClassifier
from attacks.problem import Limits
from attacks.registry import kind_of
from attacks.result import AttackResult
from attacks.threat import ThreatModel
from certify.result import Outcome
from leaderboards.manifest import StepInfo
from leaderboards.near import NEAR
from robustbench_c.evaluation.budgets import AttackBudget
from robustbench_c.evaluation.certifying import Budget, Certifier
from robustbench_c.evaluation.protocol_steps import Proof, attack_of
from robustbench_c.evaluation.radius import grid
from robustbench_c.evaluation.sharing import fair_size
from robustbench_c.evaluation.threats import searched

LOOK = 0.3
"""Seconds that one look at a step may take, if one sample takes no longer."""
SLOW = 1.0
"""Seconds beyond which a look is not repeated, though a first one takes more than others."""
CHUNKS = 400 << 20
"""Memory of bounds beyond which they are cut into chunks."""
_PASSES = 24
"""Passes of an attack within which most of what it breaks is broken."""
_TILE_SECONDS = 2.0
"""Of an attack of which nobody knows the number of passes."""
_SUBPROBLEMS = 32
"""Of a sample that branch and bound is tried on."""
_NEAR_SHARE = 0.1
"""Of the open samples, those that attacks come near to break."""


@dataclass(eq=False)
class Pilot:
    """A few of a run's samples that the model gets right, and what was learnt on them.

    Attributes:
        classifier: The model in tiles.
        x: The samples, (k, *shape), k >= 1, on the model's device.
        y: Their classes.
        logits: Of them, (k, classes).
        threat: What the attacker may do, there too.
        confirm: As of `attacks.problem.Problem`.
        samples: Samples of the run that are right, as far as these tell.
        macs: Multiply-adds of a sample's forward pass.
        likely: Seconds of the steps so far.
        most: The same, if no sample is settled before the end.
        open: Share of the right samples that is open.
        memory: Bytes at peak so far.
        rows: Which of the samples are open.
    """

    classifier: TiledClassifier
    x: Tensor
    y: Tensor
    logits: Tensor
    threat: ThreatModel
    confirm: Callable[[Tensor, Tensor], Tensor] | None
    samples: float
    macs: float
    likely: float = 0.0
    most: float = 0.0
    open: float = 1.0
    memory: int = 0
    rows: Tensor = field(init=False)
    _attacked: float = 0.0  # seconds of attacks: there may be a limit

    def __post_init__(self) -> None:
        self.rows = torch.arange(len(self.x), device=self.x.device)

    def attack(self, step: StepInfo) -> None:
        """Add a step of kind `attack`."""
        config, budget = attack_of(step), AttackBudget.of(step)
        passes, left = kind_of(config).passes(config, self.logits.shape[1]), self.open
        if passes is None:
            likely, most = self._of_tiles(step)
        else:
            passes, early = min(passes, budget.queries or passes), 0.0
            cost = self.pass_cost(step)
            if NEAR in step.parameters:
                kept = _NEAR_SHARE
            elif step.minimal:
                left, kept = 1.0, 1.0
            else:
                kept, early = self._try(step, min(passes, _PASSES))
            likely = self._seconds(cost, passes, self.samples * left, kept, early)
            most = self._seconds(cost, passes, self.samples, 1.0, 0.0)
        if budget.seconds is not None:
            most = min(most, budget.seconds)
            likely = min(likely, max(0.0, budget.seconds - self._attacked))
        self._attacked += likely
        self.likely, self.most = self.likely + likely, self.most + most
        self._remember()

    def pass_cost(self, step: StepInfo) -> Callable[[float], float]:
        """Seconds of one pass of an attack, by the number of samples in it."""
        small, large = self.classifier.tiles[0], self.classifier.tiles[-1]
        one = self._timed_pass(step, small)
        many = self._timed_pass(step, large) if large > small else one

        def cost(rows: float) -> float:
            if rows >= large:
                return many * rows / large
            share = max(0.0, rows - small) / max(1, large - small)
            return one + share * max(0.0, many - one)

        return cost

    def _timed_pass(self, step: StepInfo, size: int) -> float:
        """Run an attack for a few passes, so near to the samples that none breaks and leaves."""
        threat, each = self.threat, max(size * self.classifier.seconds, 1e-5)
        if not step.minimal and threat.norm != "l0":
            threat = replace(threat, eps=threat.eps / 1000)
        rows = torch.arange(size, device=self.x.device) % len(self.x)
        queries, times = int(min(_PASSES, max(3, LOOK / 4 / each))), []
        for _ in range(2):  # others may work on this machine for a moment
            began = time.perf_counter()
            result = self._run(step, rows, threat, queries)
            times.append((time.perf_counter() - began) / max(1, int(result.forwards.max())))
        return min(times)

    def _try(self, step: StepInfo, queries: int) -> tuple[float, float]:
        """Attack the open samples for some passes.

        Returns:
            The share that holds, and after how many passes the others broke.
        """
        result = self._run(step, self.rows, self.threat, queries)
        hit = result.found
        kept = self._settle(hit)
        return kept, float(result.forwards[hit].double().mean()) if bool(hit.any()) else 0.0

    def _of_tiles(self, step: StepInfo) -> tuple[float, float]:
        """Of attacks that nobody knows the length of: a tile of samples, if it takes no longer."""
        tile, began = self.classifier.tiles[0], time.perf_counter()
        rows = self.rows[torch.arange(tile, device=self.rows.device) % len(self.rows)]
        result = self._run(step, rows, self.threat, None, began + _TILE_SECONDS)
        seconds = (time.perf_counter() - began) / tile * self.samples
        likely = seconds * self.open
        self._settle(result.found[: len(self.rows)])
        return likely, seconds

    def _run(
        self,
        step: StepInfo,
        rows: Tensor,
        threat: ThreatModel,
        queries: int | None,
        deadline: float | None = None,
    ) -> AttackResult:
        config = attack_of(step)
        kind = kind_of(config)
        more = {"minimal": True} if step.minimal and kind.minimal == "asked" else {}
        return kind.run(
            self.classifier,
            self.x[rows],
            self.y[rows],
            torch.arange(len(rows)),
            searched(step, threat, tuple(self.x.shape[1:])),
            config,
            0,
            confirm=self.confirm,
            limits=Limits(
                self.logits[rows],
                None if queries is None else torch.full_like(rows, queries),
                deadline,
            ),
            **more,
        )

    def _seconds(
        self,
        cost: Callable[[float], float],
        passes: float,
        samples: float,
        kept: float,
        early: float,
    ) -> float:
        """Time of an attack, shard by shard: on all samples at first, then on those that hold."""
        shape, tile = tuple(self.x.shape[1:]), self.classifier.tiles[-1]
        size = fair_size(self.macs * passes, math.ceil(self.samples), tile, shape)
        shards = max(1, math.ceil(samples / size))
        each = samples / shards
        held = each * kept
        late = max(0.0, passes - early)
        return shards * (min(early, passes) * cost(each) + late * min(1.0, held) * cost(held))

    def prove(self, step: StepInfo, certifier: Certifier) -> None:
        """Add a step of kind `certificate`."""
        proof = Proof.of(step)
        if proof.tolerance is not None:
            shape = tuple(self.x.shape[1:])
            tries = math.log2(len(grid(self.threat, shape, proof.tolerance)) + 1)
            each, _ = self._bounded(certifier, proof, proof.budget)
            self.likely += each * tries * self.samples
            self.most += each * tries * self.samples
            self._remember()
            return
        left = self.samples * self.open
        budget = proof.budget
        if proof.method == "complete":
            budget = replace(budget, subproblems=min(budget.subproblems, _SUBPROBLEMS))
        each, growth = self._bounded(certifier, proof, budget, settle=True)
        likely, most = each * left * growth[0], each * self.samples * growth[1]
        if proof.samples == "audit":
            least = each
            if proof.least != proof:
                least, _ = self._bounded(certifier, proof, proof.least.budget)
            likely += least * (self.samples - left)
        if proof.budget.seconds is not None:
            likely = min(likely, left * proof.budget.seconds)
            most = min(most, self.samples * proof.budget.seconds)
        self.likely, self.most = self.likely + likely, self.most + most
        self._remember()

    def _bounded(
        self, certifier: Certifier, proof: Proof, budget: Budget, settle: bool = False
    ) -> tuple[float, tuple[float, float]]:
        """Bound some of the open samples together: as many as a look has time for.

        Args:
            certifier: Proves.
            proof: How.
            budget: What it may spend here.
            settle: Whether what is proved leaves.

        Returns:
            Seconds of a sample, and how often as much the whole budget takes, likely and at most.
        """
        count, growth, warm = 1, (1.0, 1.0), proof.method == "complete"
        while True:
            unique = self.rows[:count]
            rows = self.rows[torch.arange(count, device=self.rows.device) % len(self.rows)]
            before = memory.in_use(self.x.device)
            memory.reset_peak(self.x.device)
            began = time.perf_counter()
            found = certifier.certify(
                proof.method,
                self.x[rows],
                self.y[rows],
                torch.arange(count),
                self.threat,
                budget,
                0,
            )
            seconds = time.perf_counter() - began
            self._remember(before, proof.tile / count)
            if not warm and seconds < SLOW:  # the first time takes more
                warm = True
                continue
            more = min(proof.tile, int(count * LOOK / max(seconds, 1e-6)))
            if more < 2 * count:
                break
            count = more
        done = torch.tensor([o in (Outcome.CERTIFIED, Outcome.FALSIFIED) for o in found.outcome])
        work = found.work.cpu().double()
        if budget.subproblems < proof.budget.subproblems and not bool(done.all()):
            rests = heavy_tail(budget.subproblems, proof.budget.subproblems)
            whole, spent = float(proof.budget.subproblems), max(1.0, float(work.sum()))
            growth = (
                float(torch.where(done, work, rests).sum()) / spent,
                float(torch.where(done, work, whole).sum()) / spent,
            )
        elif proof.method == "complete":
            growth = (1.0, proof.budget.subproblems / max(1.0, float(work.mean())))
        if settle:
            self._settle(done[: len(unique)].to(self.rows.device))
        return seconds / count, growth

    def _settle(self, done: Tensor) -> float:
        """Take out open samples: of the first of them, those that are done; returns what is kept.

        Of few samples nothing is sure: a tenth of a sample more of either kind is added.
        """
        known = len(done)
        kept = (int((~done).sum()) + 0.1) / (known + 0.2)
        self.open *= kept
        rows = torch.cat([self.rows[:known][~done], self.rows[known:]])
        if len(rows):
            self.rows = rows
        return kept

    def _remember(self, before: int = 0, times: float = 1.0) -> None:
        """Note the peak; where a part was bounded together, what the whole would have taken."""
        most = memory.peak(self.x.device)
        if before:
            grown = max(0, most - before)
            most = before + int(min(grown * max(1.0, times), max(grown, CHUNKS)))
        self.memory = max(self.memory, most)


def heavy_tail(done: int, most: int) -> float:
    """Subproblems of a sample that is open after some, expected.

    Four times as many leave half of the samples open (a Pareto distribution of exponent 1/2).
    """
    return math.sqrt(done) * (2 * math.sqrt(most) - math.sqrt(done))

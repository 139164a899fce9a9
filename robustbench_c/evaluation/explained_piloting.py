"""The steps of a run about explanations tried on a few of its samples, for `estimate`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from attacks import memory
from attacks.explanation_attacks import attack_explanations
from attacks.explanation_config import ExplanationAttackConfig
from attacks.explanations import Explanation, explain, seeds
from attacks.threat import ThreatModel
from certify.explaining import ExplanationCertifier, Method
from certify.lipschitz import local_lipschitz
from certify.monotonicity import certify_monotone
from certify.steepness import Steepness
from robustbench_c.evaluation.explained_config import TILE, ExplainConfig
from robustbench_c.evaluation.explained_proving import Boxes
from robustbench_c.evaluation.explained_task import runner_up
from robustbench_c.evaluation.piloting import CHUNKS, LOOK, SLOW, heavy_tail

_SUBPROBLEMS = 4
"""Of a sample and logit, that local Lipschitz constants are tried on."""
_CLEAN = 8
"""How often a clean explanation is made: for the record, the judge and proofs, in two formats."""


@dataclass(eq=False)
class ExplainedPilot:
    """A few of a run's samples, and what was learnt on them.

    Attributes:
        model: In float32.
        x: The samples, (k, *shape), on the model's device.
        threat: What the attacker may do to an input, there too.
        config: What is explained and how.
        samples: Samples of the run.
        likely: Seconds of the steps so far.
        most: The same, if every budget is used up.
        memory: Bytes at peak so far.
    """

    model: nn.Module
    x: Tensor
    threat: ThreatModel
    config: ExplainConfig
    samples: int
    likely: float = 0.0
    most: float = 0.0
    memory: int = 0
    target: Tensor = field(init=False)
    other: Tensor | None = field(init=False)
    classes: int = field(init=False)

    def __post_init__(self) -> None:
        with torch.no_grad():
            logits = self.model(self.x)
        self.target, self.classes = logits.argmax(1), logits.shape[1]
        margin = self.config.explanation.of == "margin"
        self.other = runner_up(logits, self.target) if margin else None

    def explain(self) -> None:
        """Add the clean explanations: in float32 and in float64, for the judge and for proofs."""
        rows = self._some(TILE)
        other = None if self.other is None else self.other[rows]
        for _ in range(2):  # the first time takes more
            began = time.perf_counter()
            explain(self.model, self.x[rows], self.target[rows], self.config.explanation, other)
            seconds = time.perf_counter() - began
        self._add(seconds * _CLEAN / TILE)

    def attack(self, config: ExplanationAttackConfig) -> None:
        """Add the attack."""
        rows = self._some(TILE if self.config.budget is None else 8)
        for _ in range(2):
            began = time.perf_counter()
            self._bend(rows, replace(config, steps=1, restarts=1))
            once = time.perf_counter() - began
        more = max(2, min(config.steps, int(LOOK / max(once, 1e-4))))
        began = time.perf_counter()
        found = self._bend(rows, replace(config, steps=more, restarts=1))
        step = max(0.0, time.perf_counter() - began - once) / (more - 1)
        each = config.restarts * (once + step * (config.steps - 1)) / len(rows)
        kept = (int((~found).sum()) + 0.1) / (len(found) + 0.2) if config.stop else 1.0
        self._add(each * kept, each)

    def _bend(self, rows: Tensor, config: ExplanationAttackConfig) -> Tensor:
        """Attack some explanations; returns which are bent."""
        fixed = self.threat.eps == 0 and self.config.budget is not None
        return attack_explanations(
            self.model,
            self.x[rows],
            self.target[rows],
            torch.arange(len(rows)),
            None if fixed else self.threat,
            self.config.explanation,
            self.config.criterion,
            config,
            0,
            other=None if self.other is None else self.other[rows],
            budget=self.config.budget,
        ).found

    def bound(self, boxes: Boxes, method: Method) -> None:
        """Add a certificate, and what it has in its rows."""
        fixed = self.threat.eps == 0 and self.config.budget is not None
        threat = None if fixed else self.threat

        def box(rows: Tensor) -> None:
            boxes.box(self.x[rows], self._seeds(rows), threat, self.config.budget, method)

        self._add(self._timed(box))
        if self.config.monotone:
            slopes = self._slopes()
            self._add(self._timed(lambda rows: self._monotone(slopes, rows, method)))
        if self.config.lipschitz is not None and method == self.config.methods[0]:
            self._steepness(self.config.lipschitz)

    def _slopes(self) -> ExplanationCertifier:
        score = Explanation("gradient", self.config.explanation.of)
        return ExplanationCertifier(self.model, self.x[:1], score)

    def _monotone(self, slopes: ExplanationCertifier, rows: Tensor, method: Method) -> None:
        features = torch.tensor(self.config.monotone, device=self.x.device)
        budget, seed = self.config.budget, self._seeds(rows)
        certify_monotone(slopes, self.x[rows], seed, features, self.threat, budget, method)

    def _steepness(self, budget: int) -> None:
        """Add local Lipschitz constants."""
        steepness = Steepness(self.model, self.x[:1], self.threat, self.classes)
        few, spent = min(budget, _SUBPROBLEMS), 0.0

        def look(rows: Tensor) -> None:
            nonlocal spent
            found = local_lipschitz(
                self.model, self.x[rows], self.threat, budget=few, steepness=steepness
            )
            spent = float(found.subproblems.double().mean())

        each = self._timed(look)
        likely = (heavy_tail(few, budget) if spent >= few else spent) / max(1.0, spent)
        self._add(each * likely, each * budget / max(1.0, spent))

    def _timed(self, work: Callable[[Tensor], None]) -> float:
        """Seconds that a sample takes, together with as many as a look has time for."""
        count, warm = 1, False
        while True:
            before = memory.in_use(self.x.device)
            memory.reset_peak(self.x.device)
            began = time.perf_counter()
            work(self._some(count))
            seconds = time.perf_counter() - began
            grown = max(0, memory.peak(self.x.device) - before)
            whole = min(grown * TILE // count, max(grown, CHUNKS))
            self.memory = max(self.memory, before + whole)
            if not warm and seconds < SLOW:
                warm = True
                continue
            more = min(TILE, int(count * LOOK / max(seconds, 1e-6)))
            if more < 2 * count:
                return seconds / count
            count = more

    def _some(self, count: int) -> Tensor:
        return torch.arange(count, device=self.x.device) % len(self.x)

    def _seeds(self, rows: Tensor) -> Tensor:
        other = None if self.other is None else self.other[rows]
        found = seeds(self.config.explanation, self.target[rows], self.classes, other)
        return found.to(self.x)

    def _add(self, likely: float, most: float | None = None) -> None:
        self.likely += likely * self.samples
        self.most += (likely if most is None else most) * self.samples
        self.memory = max(self.memory, memory.peak(self.x.device))

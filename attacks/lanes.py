"""The engine of the attacks: a tile of searches side by side, over a shrinking set of samples.

One pass evaluates a point and gives the gradient for the next one, so a sample is known to be
broken at no extra cost, and leaves at once; the next sample waiting takes its place in the tile.
A search depends on its own noise, logits and gradients alone, so none of this changes a verdict.
What an attack is made of is a `Method`: where a search starts, what it raises, how it moves.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.driver import distances
from attacks.errors import AttackError
from attacks.losses import gain, margin
from attacks.problem import Problem
from attacks.randomness import stream_keys
from attacks.result import AttackResult
from attacks.threat import NORMS, AnyNorm

State = dict[str, Tensor]
"""What a search remembers, one row for each lane. "point" is the input that is evaluated next."""
CLEAR = 1e-5
"""Margin, as a share of the largest logit, from which a find of a minimal-distance search counts:
beyond the rounding of float32, so that it also holds in float64."""


class Lanes:
    """The searches in flight: each row of the tile is at its own step of its own run.

    Attributes:
        problem: What is attacked.
        ball: The legal inputs of each row.
        state: What the method remembers.
        sample: Position of each row's sample, int64, (tile,).
        run: Its run, from 0, int64, (tile,).
        step: Its step, from 0, int64, (tile,).
        keys: Its stream of noise, int64, (tile,).
        live: Rows that are at work; the others repeat a sample and count for nothing.
    """

    def __init__(self, problem: Problem, method: Method, size: int) -> None:
        self.problem = problem
        self.streams = _streams(problem, method)
        self.sample = torch.zeros(size, dtype=torch.int64, device=problem.x.device)
        self.run = torch.zeros_like(self.sample)
        self.step = torch.zeros_like(self.sample)
        self.keys = self.streams[self.sample, self.run]
        self.live = torch.zeros(size, dtype=torch.bool, device=problem.x.device)
        self.ball = Ball.around(problem.threat, problem.x[self.sample])
        self.state: State = {}
        self.count = 0

    @property
    def y(self) -> Tensor:
        """True class of each row."""
        return self.problem.y[self.sample]

    def gain(self, logits: Tensor, aims: int) -> Tensor:
        """How far a class is ahead of the true one, (tile,).

        Args:
            logits: (tile, classes).
            aims: Other classes aimed at by turns, one in each run, the likeliest on the clean
                sample first; 0: it is the likeliest other class here.
        """
        if not aims:
            return -margin(logits, self.y)
        return gain(logits, self.y, self.problem.ranked[self.sample, self.run % aims])

    def refill(self, method: Method, waiting: deque[tuple[int, int]]) -> None:
        """Put the next waiting samples, at their starting points, into idle rows."""
        if not waiting or self.count == len(self.live):
            return
        problem = self.problem
        idle = (~self.live).nonzero()[: len(waiting), 0]
        taken = [waiting.popleft() for _ in range(len(idle))]
        # whole tiles here as well: a sum over one row can be split differently from one over 32
        padded = taken + taken[:1] * (-len(taken) % problem.classifier.tiles[0])
        fresh = Lanes.__new__(Lanes)
        fresh.problem = problem
        fresh.sample, fresh.run = torch.tensor(padded, device=problem.x.device).T
        fresh.step = torch.zeros_like(fresh.sample)
        fresh.keys = self.streams[fresh.sample, fresh.run]
        fresh.ball = Ball.around(problem.threat, problem.x[fresh.sample])
        count = len(taken)
        state = method.begin(fresh)
        for name, values in state.items():
            if name not in self.state:
                self.state[name] = values[:1].expand(len(self.live), *values.shape[1:]).clone()
            self.state[name][idle] = values[:count]
        self.ball.replace(idle, fresh.ball, count)
        for name in ("sample", "run", "step", "keys"):
            getattr(self, name)[idle] = getattr(fresh, name)[:count]
        self.live = self.live.index_fill(0, idle, True)
        self.count += count

    def leave(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Make rows idle; returns their samples and runs."""
        self.live = self.live & ~rows
        self.count -= int(rows.sum())
        return self.sample[rows], self.run[rows]

    def shrink(self, size: int) -> None:
        """Keep the live rows, padded by idle ones to `size`."""
        order = torch.argsort(~self.live, stable=True)[:size]
        self.ball = self.ball.select(order)
        self.state = {name: values[order] for name, values in self.state.items()}
        for name in ("sample", "run", "step", "keys", "live"):
            setattr(self, name, getattr(self, name)[order])


class Method(ABC):
    """One attack.

    Attributes:
        name: Names its noise.
        runs: Runs of one sample, one after the other: restarts, targets.
        steps: Moves of one run; `steps + 1` points are evaluated.
        gradients: Whether it needs gradients, or logits alone.
        strays: Whether points may lie outside of the ball of radius eps (never of the box).
        norms: The norms it is for.
        ended: Samples whose search is over though runs are left, bool, (n,), kept by `move`; it
            hangs on the sample's own points alone. None: there are none.
    """

    name: str
    runs: int
    steps: int
    gradients: bool = True
    strays: bool = False
    norms: tuple[AnyNorm, ...] = NORMS
    ended: Tensor | None = None

    @abstractmethod
    def begin(self, lanes: Lanes) -> State:
        """What a search starts with, for some lanes that are at their first step."""

    @abstractmethod
    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """What is raised (by methods without gradients: looked at), (tile,)."""

    @abstractmethod
    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor | None:
        """Replace `lanes.state` by that of the next step.

        Args:
            lanes: Before the move.
            logits: At the present point, (tile, classes).
            loss: Its loss there, (tile,).
            gradient: Of the loss there, (tile, *shape); empty where `gradients` is false.

        Returns:
            Rows whose run may end here, since all that follows is known to be in vain; or None.
        """


def drive(problem: Problem, method: Method) -> AttackResult:
    """Attack each sample until it breaks or its runs are used up.

    Returns:
        What was found. The caller re-checks it (`attacks.driver`) before it counts.

    Raises:
        AttackError: The method is not for the threat model's norm.
    """
    x, classifier = problem.x, problem.classifier
    if problem.threat.norm not in method.norms:
        norms = ", ".join(method.norms)
        raise AttackError(f"the attack {method.name} is for {norms}, not for {problem.threat.norm}")
    result = AttackResult.empty(x)
    if len(x) == 0:
        return result
    leaves = problem.active_set and not problem.minimal
    limits, most = problem.limits, None if problem.limits is None else problem.limits.queries
    begun = range(len(x)) if most is None else (most > 0).nonzero()[:, 0].tolist()
    waiting = deque((sample, 0) for sample in begun)
    lanes = Lanes(problem, method, classifier.tile_for(len(x)))
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    finished = 0
    while True:
        started = time.perf_counter()
        lanes.refill(method, waiting)
        if not lanes.count:
            return _closed(problem, method, result)
        if limits is not None and limits.late:
            result.timeout[lanes.sample[lanes.live]] = True
            result.timeout[[sample for sample, _ in waiting]] = True
            return _closed(problem, method, result)
        if lanes.count <= (size := classifier.tile_for(lanes.count)) < len(lanes.live):
            lanes.shrink(size)
        samples, live, count, point = lanes.sample, lanes.live, lanes.count, lanes.state["point"]
        fresh = live if leaves or problem.minimal else live & ~result.found[samples]
        logits, loss, gradient = _evaluate(lanes, method)
        gap, missed = _margins(lanes, logits)
        hit, inside = fresh & missed, torch.ones_like(fresh)
        if method.strays or problem.minimal:
            apart = distances(lanes.ball.x, point, problem.threat)
            inside = apart <= problem.threat.eps
            hit = hit & inside
        if problem.minimal:
            hit = hit & (gap < -CLEAR * logits.abs().amax(1)) & (apart < nearest[samples])
            nearest[samples[hit]] = apart[hit]  # no two rows are about one sample
        else:
            hit = _confirm(lanes, hit, result)
        if bool(hit.any()):
            result.record(samples[hit], point[hit], lanes.run[hit], lanes.step[hit])
        last, spent = lanes.step >= method.steps, torch.zeros_like(result.found)
        if most is not None:
            spent = result.forwards + 1 >= most  # of samples that are looked at in this pass
            last = last | spent[samples]
        early = method.move(lanes, logits, loss, gradient)
        if method.ended is not None:
            spent = spent | method.ended
            last = last | method.ended[samples]
        over = last if early is None or not classifier.invariant else last | early
        leaving = live & ((hit | over) if leaves else over)
        if bool(leaving.any()):
            left, run = lanes.leave(leaving)
            again = (~result.found[left] | problem.minimal) & (run + 1 < method.runs) & ~spent[left]
            waiting.extend(zip(left[again].tolist(), (run[again] + 1).tolist(), strict=True))
            finished += int((~again).sum())
        lanes.step = lanes.step + lanes.live.long()
        share = (time.perf_counter() - started) / count
        moved = fresh & ~last & (~hit | problem.minimal) & method.gradients
        result.count(samples, fresh, moved, gap, inside, gradient, live.double() * share)
        if count > lanes.count and problem.progress is not None:
            problem.progress(finished, int(result.found.sum()))


def _streams(problem: Problem, method: Method) -> Tensor:
    """One stream of noise for each sample and run, (n, runs)."""
    ids = problem.ids.tolist()
    keys = [stream_keys(problem.seed, method.name, ids, run) for run in range(method.runs)]
    return torch.stack(keys, 1).to(problem.x.device)


def _evaluate(lanes: Lanes, method: Method) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, loss and gradient at the present points."""
    point, classifier = lanes.state["point"], lanes.problem.classifier
    if not method.gradients:
        logits = classifier.logits(point)
        return logits, method.loss(lanes, logits), point.new_zeros(len(point), 0)
    losses: list[Tensor] = []

    def loss(logits: Tensor) -> Tensor:
        losses.append(method.loss(lanes, logits))
        return losses[-1]

    logits, gradient = classifier.logits_and_gradient(point, loss)
    return logits, losses[-1].detach(), gradient


def _margins(lanes: Lanes, logits: Tensor) -> tuple[Tensor, Tensor]:
    """How far each row is from an adversarial example, and whether it is one but for its place."""
    targets = lanes.problem.targets
    if targets is None:
        gap, missed = margin(logits, lanes.y), logits.argmax(1) != lanes.y
    else:
        aim = targets[lanes.sample]
        gap, missed = -margin(logits, aim), logits.argmax(1) == aim
    finite = logits.isfinite().all(1)  # as the judge has it: also of classes that do not lead
    return torch.where(finite, gap, torch.nan), missed & finite


def _closed(problem: Problem, method: Method, result: AttackResult) -> AttackResult:
    """The result, where a search that met no point within eps has the sample's own margin."""
    no_point = method.strays or problem.limits is not None
    if no_point and bool(result.lowest.isinf().any()):
        own = margin(problem.clean, problem.y)
        unseen = result.lowest.isinf() & own.isfinite()
        result.lowest = torch.where(unseen, own, result.lowest)
    return result


def _confirm(lanes: Lanes, hit: Tensor, result: AttackResult) -> Tensor:
    """Which of the hits hold in float64 too."""
    confirm = lanes.problem.confirm
    if confirm is None or not bool(hit.any()):
        return hit
    rows = hit.nonzero()[:, 0]
    sure = confirm(lanes.state["point"][rows], lanes.y[rows])
    result.rounding[lanes.sample[rows[~sure]]] = True
    return hit.index_put((rows,), sure)

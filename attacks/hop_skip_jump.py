"""HopSkipJump (Chen, Jordan, Wainwright, IEEE S&P 2020): by predicted classes alone, L2 and Linf.

It looks for the nearest adversarial example, whatever eps is. One query is one step of a search,
so a search remembers what it is about: looking for a START, a binary SEARCH for the boundary, an
ESTIMATE of the boundary's direction, a WALK along it. Lengths are in units of eps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.driver import missed
from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State
from attacks.offsets import TINY, Offsets, length
from attacks.problem import Problem
from attacks.randomness import advance, gaussian, uniform
from attacks.threat import ThreatModel

START, SEARCH, ESTIMATE, WALK = range(4)
_FINEST = 2.0**-20  # share of a distance that float32 still shows
_COARSEST = 1e-3  # the paper's precision of few features is a good part of the distance
_FIRST = 0.1  # radius of the first estimate, as a share of the box


@dataclass(frozen=True)
class HopSkipJumpConfig:
    """Settings of HopSkipJump; every one of them is part of the protocol.

    Attributes:
        queries: Forward passes of one run, >= 2, those that look for a start included.
        restarts: Independent runs, >= 1.
        batch: Queries of the first estimate of a direction, >= 1; the `t`-th takes
            `batch * sqrt(t)`.
    """

    queries: int = 5000
    restarts: int = 1
    batch: int = 100

    def __post_init__(self) -> None:
        if self.queries < 2 or self.restarts < 1 or self.batch < 1:
            raise AttackError(
                f"queries is {self.queries}, restarts {self.restarts} and batch {self.batch}: "
                "they must be at least 2, 1 and 1"
            )


class HopSkipJump(Method):
    """HopSkipJump as a `Method`."""

    name = "hop-skip-jump"
    gradients = False
    strays = True

    def __init__(self, config: HopSkipJumpConfig, threat: ThreatModel) -> None:
        if threat.norm == "l1":
            raise AttackError("HopSkipJump is for l2 and linf: the paper has no form for l1")
        self.runs, self.steps, self.batch = config.restarts, config.queries - 1, config.batch
        self.threat, self.linf = threat, threat.norm == "linf"

    def begin(self, lanes: Lanes) -> State:
        """At uniform noise."""
        n, d = len(lanes.keys), lanes.ball.x[0].numel()
        numbers = torch.zeros(n, 1, dtype=torch.float64, device=lanes.keys.device)
        rows = torch.zeros(n, d, dtype=torch.float64, device=lanes.keys.device)
        frame = Offsets.around(self.threat, lanes.ball.x)
        return {
            "point": frame.place(self._noise(frame, lanes.keys, lanes.step)),
            "phase": torch.full_like(lanes.step, START),
            "far": rows,  # adversarial, where the binary search began
            "edge": rows,  # adversarial, the nearest that the binary search met
            "low": numbers,  # the search's bracket, as a share of the way to `far`
            "high": numbers,
            "round": numbers,
            "left": numbers,  # queries to come of an estimate
            "radius": numbers,
            "sum": rows,  # of the directions asked for
            "signed": rows,  # of those less the ones that are not adversarial
            "balance": numbers,
            "direction": rows,
            "stride": numbers,
        }

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """1 where the prediction is wrong, else 0: all that the attack looks at."""
        return missed(logits, lanes.y).float()

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithm 2, one query further."""
        s = dict(lanes.state)
        frame = Offsets.around(self.threat, lanes.ball.x)
        here, d = frame.of(s["point"]), frame.low.shape[1]
        wrong, phase = loss[:, None] > 0, s["phase"][:, None]
        theta = min(max(d**-2.0 if self.linf else d**-1.5, _FINEST), _COARSEST)

        # a start, or a walk, that is adversarial is where a binary search begins
        begun = wrong & ((phase == START) | (phase == WALK))
        searched = phase == SEARCH
        middle = (s["low"] + s["high"]) / 2
        s["far"] = torch.where(begun, here, s["far"])
        s["edge"] = torch.where(begun | (searched & wrong), here, s["edge"])
        s["low"] = torch.where(begun, 0.0, torch.where(searched & ~wrong, middle, s["low"]))
        s["high"] = torch.where(begun, 1.0, torch.where(searched & wrong, middle, s["high"]))
        at_edge = searched & (s["high"] - s["low"] <= theta)

        # an estimate begins
        away = length(self.threat.norm, s["edge"])
        s["round"] = s["round"] + at_edge
        span = (frame.high - frame.low).amax(1, keepdim=True)
        radius = torch.where(s["round"] == 1, _FIRST * span, away / d)
        s["radius"] = torch.where(at_edge, radius, s["radius"])
        s["left"] = torch.where(at_edge, self._size(s["round"]), s["left"])
        for name in ("sum", "signed", "balance"):
            s[name] = torch.where(at_edge, 0.0, s[name])

        # an answer of an estimate: the direction as it is after clipping
        asked = phase == ESTIMATE
        sign = torch.where(wrong, 1.0, -1.0)
        tried = torch.where(asked, here - s["edge"], 0.0) / s["radius"].clamp_min(TINY)
        s["sum"] = s["sum"] + tried
        s["signed"] = s["signed"] + sign * tried
        s["balance"] = s["balance"] + torch.where(asked, sign, 0.0)
        s["left"] = s["left"] - asked.double()
        ready = asked & (s["left"] <= 0)
        s["direction"] = torch.where(ready, self._direction(s), s["direction"])
        stride = torch.where(ready, away / s["round"].clamp_min(1).sqrt(), s["stride"])
        s["stride"] = torch.where((phase == WALK) & ~wrong, stride / 2, stride)

        phase = torch.where(begun, SEARCH, phase)
        phase = torch.where(at_edge, ESTIMATE, phase)
        phase = torch.where(ready, WALK, phase)
        s["phase"] = phase[:, 0]
        s["point"] = frame.place(self._next(lanes, frame, s))
        lanes.state = s

    def _size(self, number: Tensor) -> Tensor:
        """Queries of the estimate of a round."""
        return (self.batch * number.sqrt()).floor()

    def _direction(self, s: State) -> Tensor:
        """The estimate, its mean answer taken off to lower the variance, as the norm has it.

        Where all answers are of one kind they count as they are.
        """
        mean = s["balance"] / self._size(s["round"]).clamp_min(1)
        one_kind = mean.abs() == 1
        pull = s["signed"] - torch.where(one_kind, 0.0, mean) * s["sum"]
        if self.linf:
            return pull.sign()
        return pull / length("l2", pull).clamp_min(TINY)

    def _noise(self, frame: Offsets, keys: Tensor, step: Tensor) -> Tensor:
        """A place to start from: uniform in the box, later of random contrast about a level."""
        d = frame.low.shape[1]
        u = uniform(keys, d + 2).double()
        later = step[:, None] > 0
        contrast = torch.where(later, u[:, d : d + 1], 1.0)
        level = u[:, d + 1 :]
        share = level + contrast * (u[:, :d] - level)
        return frame.low + share * (frame.high - frame.low)

    def _next(self, lanes: Lanes, frame: Offsets, s: State) -> Tensor:
        """The offset to ask for, by the phase of each search."""
        phase, d = s["phase"][:, None], frame.low.shape[1]
        keys = advance(lanes.keys, (lanes.step + 1) * (3 * d + 2))
        middle = (s["low"] + s["high"]) / 2
        if self.linf:  # algorithm 1: within a share of the distance of `far`
            reach = middle * length("linf", s["far"])
            between = torch.minimum(torch.maximum(s["far"], -reach), reach)
        else:
            between = middle * s["far"]
        offset = torch.where(phase == SEARCH, between, s["edge"] + s["stride"] * s["direction"])
        if bool((phase == START).any()):
            fresh = self._noise(frame, keys, lanes.step + 1)
            offset = torch.where(phase == START, fresh, offset)
        if bool((phase == ESTIMATE).any()):
            u = (2.0 * uniform(keys, d) - 1.0 if self.linf else gaussian(keys, d)).double()
            u = u * (frame.low < frame.high)
            u = u / length("l2", u).clamp_min(TINY)
            offset = torch.where(phase == ESTIMATE, s["edge"] + s["radius"] * u, offset)
        return offset


@Attack
def hop_skip_jump(config: HopSkipJumpConfig, problem: Problem) -> Method:
    """HopSkipJump; for Linf and L2."""
    return HopSkipJump(config, problem.threat)

"""FAB, the fast adaptive boundary attack (Croce and Hein, ICML 2020), for Linf, L2 and L1.

It walks to the decision boundary: linearised where the search stands, the boundary is a hyperplane,
and the nearest points of (hyperplane intersected with box) from there and from the clean sample
pull together. It looks for the nearest adversarial example, whatever eps is.

Two departures from Algorithm 1. After a step back from an adversarial point the boundary is that
seen from the adversarial point, not from the point stepped back to: so each pass serves both to
look and to linearise, and at equal passes the distances found are smaller. And the boundary is
where a find counts (`attacks.lanes.CLEAR`), a rounding error beyond that of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.hyperplanes import onto_hyperplane
from attacks.lanes import CLEAR, Lanes, Method, State
from attacks.losses import margin
from attacks.offsets import TINY, Offsets, length
from attacks.problem import Problem
from attacks.randomness import gaussian, uniform
from attacks.rows import wide
from attacks.threat import ThreatModel

_ALPHA_MAX = 0.1
_ETA = 1.05
_BETA = 0.9
_SEARCH = 3
_SHORT = 0.99


@dataclass(frozen=True)
class FABConfig:
    """Settings of FAB; every one of them is part of the protocol.

    Attributes:
        steps: Moves of one run, > 3: the last three search between the best find and the sample.
        restarts: Runs (for each target, where there are some), >= 1; the first starts at the
            sample, the others at random points within half of `min(eps, best distance so far)`.
        targets: Other classes whose boundary is walked to one after the other, the likeliest on the
            clean sample first, at most those that there are; 0: at every step the likeliest there.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 0

    def __post_init__(self) -> None:
        if self.steps <= _SEARCH or self.restarts < 1:
            raise AttackError(
                f"steps is {self.steps} and restarts {self.restarts}: "
                f"they must be at least {_SEARCH + 1} and 1"
            )
        if self.targets < 0:
            raise AttackError(f"targets is {self.targets}: it must be 0 or more")


class FAB(Method):
    """FAB as a `Method`; any wrong class counts, whatever the target of the run."""

    strays = True

    def __init__(self, config: FABConfig, threat: ThreatModel, classes: int, samples: int) -> None:
        self.threat, self.aims = threat, min(config.targets, classes - 1)
        self.name = "fab" + ("-t" if self.aims else "")
        self.runs, self.steps = config.restarts * max(1, self.aims), config.steps
        # of all runs of a sample so far, which follow each other
        self.nearest = torch.full((samples,), torch.inf, dtype=torch.float64)
        self.nearest = self.nearest.to(threat.lower.device)

    def begin(self, lanes: Lanes) -> State:
        """At the sample, or at random within half the radius that is worth looking at."""
        x, threat, sample = lanes.ball.x, self.threat, lanes.sample
        self.nearest[sample[lanes.run == 0]] = torch.inf
        frame = Offsets.around(threat, x)
        d = frame.low.shape[1]
        flat = threat.norm == "linf"
        noise = (2.0 * uniform(lanes.keys, d) - 1.0 if flat else gaussian(lanes.keys, d)).double()
        radius = self.nearest[sample][:, None].clamp_max(threat.eps)
        radius = torch.minimum(radius, frame.farthest())
        noise = noise / length(threat.norm, noise).clamp_min(TINY) * radius / 2
        first = wide(lanes.run < max(1, self.aims), x)
        clean = lanes.problem.clean[sample]
        gap = _beyond(clean, -margin(clean, lanes.y))
        return {
            "point": torch.where(first, x, frame.place(noise)),
            "outer": torch.zeros_like(noise),
            "outer_gap": torch.zeros_like(gap),
            "distance": torch.full_like(gap, torch.inf),
            "inner": torch.zeros_like(noise),
            "inner_gap": gap,
        }

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """Difference of two logits: of the target, or the likeliest other class, and the own."""
        return lanes.gain(logits, self.aims)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithm 1: back from beyond the boundary, then a step to it; at last a final search."""
        s, norm = lanes.state, self.threat.norm
        frame = Offsets.around(self.threat, lanes.ball.x)
        here = frame.of(s["point"])
        gap = _beyond(logits, -margin(logits, lanes.y))
        beyond = gap > 0
        away = length(norm, here)
        better = beyond & (away < s["distance"])
        distance = torch.where(better, away, s["distance"])
        outer = torch.where(better, here, s["outer"])
        outer_gap = torch.where(better, gap, s["outer_gap"])
        live = lanes.live
        self.nearest[lanes.sample[live]] = torch.minimum(
            self.nearest[lanes.sample[live]], distance[live, 0]
        )
        # the final search: secants between the best find and the last point that is not one
        begins = self.steps - _SEARCH
        found = distance < torch.inf
        final = (lanes.step >= begins)[:, None] & found
        closer = (lanes.step > begins)[:, None] & final & ~beyond
        inner = torch.where(closer, here, s["inner"])
        inner_gap = torch.where(closer, gap, s["inner_gap"])
        share = _SHORT * outer_gap / (outer_gap - inner_gap).clamp_min(TINY)
        secant = outer + share.clamp(0.0, 1.0) * (inner - outer)
        slope = frame.slope(gradient)
        base = torch.where(beyond, _BETA * here, here)
        rise = -_beyond(logits, loss) - (slope * (base - here)).sum(1, keepdim=True)
        walked = self._walk(frame, base, slope, rise)
        lanes.state = {
            "point": frame.place(torch.where(final, secant, walked)),
            "outer": outer,
            "outer_gap": outer_gap,
            "distance": distance,
            "inner": inner,
            "inner_gap": inner_gap,
        }

    def _walk(self, frame: Offsets, base: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
        """The biased step: beyond the linearised boundary, bent towards the sample.

        Args:
            frame: The box.
            base: Where from, (n, d).
            slope: Of the difference of logits, (n, d).
            rise: What it lacks at `base`, (n, 1).
        """
        norm, low, high = self.threat.norm, frame.low, frame.high
        down, up = (low - base).clamp_max(0.0), (high - base).clamp_min(0.0)
        ahead = onto_hyperplane(norm, slope, rise, down, up)
        lacking = rise + (slope * base).sum(1, keepdim=True)  # at the sample, which is at 0
        direct = onto_hyperplane(norm, slope, lacking, low, high)
        one, two = length(norm, ahead), length(norm, direct)
        bias = (one / (one + two).clamp_min(TINY)).clamp_max(_ALPHA_MAX)
        target = (1 - bias) * (base + _ETA * ahead) + bias * _ETA * direct
        return torch.minimum(torch.maximum(target, low), high)


def _beyond(logits: Tensor, difference: Tensor) -> Tensor:
    """How far a difference of logits is beyond what counts as a find, float64, (n, 1)."""
    short = difference.double() - CLEAR * logits.double().abs().amax(1)
    return short[:, None].nan_to_num(0.0, 0.0, 0.0)


@Attack
def fab(config: FABConfig, problem: Problem) -> Method:
    """Fast adaptive boundary attack."""
    return FAB(config, problem.threat, problem.clean.shape[1], len(problem.x))

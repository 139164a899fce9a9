"""APGD for L1 (Croce and Hein, ICML 2021, "Mind the box: l1-APGD for sparse adversarial attacks").

Ascent steps that move a few features only, as many as the best point so far suggests, and the exact
projection onto the L1 ball within the box. It starts in a ball of three times the radius.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.lanes import Lanes, Method, State
from attacks.randomness import gaussian
from attacks.rows import wide
from attacks.threat import ThreatModel

_RADII = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # in units of eps, and share of the steps
_WINDOW = 0.04  # share of a stage's steps
_FIRST_SHARE = 0.2  # of the features move at first
_FEWER = 1.5  # features than the best point has changed; the step shrinks by as much
_LEAST = 0.1  # of the radius: the shortest step
_SPARSER = 0.95


def changed(x: Tensor, other: Tensor) -> Tensor:
    """Number of features that differ, float64, (n,)."""
    return (x != other).flatten(1).double().sum(1)


def sparse_direction(gradient: Tensor, keep: Tensor) -> Tensor:
    """Signs of the largest entries of each row (ties as well), of L1 norm 1; zero where all are.

    Args:
        gradient: (n, d), float64.
        keep: How many entries, at least one is kept, (n,).
    """
    size = gradient.abs()
    index = keep.clamp(1, size.shape[1]).long()[:, None] - 1
    least = size.sort(dim=1, descending=True).values.gather(1, index)
    signs = torch.where(size >= least, gradient.sign(), 0.0)
    return signs / signs.abs().sum(1, keepdim=True).clamp_min(1.0)


class APGDL1(Method):
    """APGD for L1 as a `Method`.

    A run is of three stages, of radius 3, 2 and 1 times eps. The move between two of them projects
    the best point onto the smaller ball; of `steps` moves all others are gradient steps. Only
    points within eps count.
    """

    strays = True

    def __init__(self, plain: Method, threat: ThreatModel) -> None:
        """Runs, steps and loss are those of `plain`."""
        self.plain, self.name = plain, plain.name
        self.runs, self.steps = plain.runs, plain.steps
        lengths = [int(share * self.steps) for _, share in _RADII]
        lengths[-1] = self.steps + 1 - sum(lengths[:-1])
        self.wide = replace(threat, eps=threat.eps * _RADII[0][0])
        radius: list[float] = []
        check: list[bool] = []
        for (factor, _), length in zip(_RADII, lengths, strict=True):
            window = max(int(_WINDOW * length), 1)
            radius += [factor * threat.eps] * length
            check += [at > 0 and at % window == 0 for at in range(length)]
        device = threat.lower.device
        self.radius = torch.tensor([*radius, threat.eps], dtype=torch.float64, device=device)
        self.check = torch.tensor(check, device=device)

    def begin(self, lanes: Lanes) -> State:
        """At Gaussian noise as wide as the box, projected onto the first ball."""
        x, ball = lanes.ball.x, self._wide(lanes)
        span = (self.wide.upper - self.wide.lower).double()
        noise = gaussian(lanes.keys, x[0].numel()).double().view_as(x) * span
        radius = self.radius[lanes.step]
        low = torch.full((len(x),), -torch.inf, device=x.device)
        features = torch.full_like(radius, x[0].numel())
        return {
            "point": ball.project(x.double() + noise, radius),
            "best": x,
            "gradient": torch.zeros_like(x),
            "best_loss": low,
            "length": torch.ones_like(radius),
            "keep": _FIRST_SHARE * features,
            "changed": features,
        }

    def _wide(self, lanes: Lanes) -> Ball:
        return Ball.around(self.wide, lanes.ball.x)

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """As for the other norms."""
        return self.plain.loss(lanes, logits)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithms 1 and 2: keep the best point, adapt sparsity and step, take a step."""
        s, x, ball = lanes.state, lanes.ball.x, self._wide(lanes)
        here, radius = s["point"], self.radius[lanes.step + 1]
        loss = loss.nan_to_num(-torch.inf)
        better = wide(loss > s["best_loss"], x)
        best = torch.where(better, here, s["best"])
        best_gradient = torch.where(better, gradient, s["gradient"])
        check, turn = self.check[lanes.step], radius < self.radius[lanes.step]
        found = changed(x, best)
        sparser = check & (found < _SPARSER * s["changed"])
        shorter = torch.where(sparser, 1.0, (s["length"] / _FEWER).clamp_min(_LEAST))
        length = torch.where(check, shorter, s["length"])
        keep = torch.where(check, found / _FEWER, s["keep"])
        here = torch.where(wide(sparser, x), best, here)
        uphill = torch.where(wide(sparser, x), best_gradient, gradient)
        unit = 1.0 if self.wide.scale is None else self.wide.scale.double()
        pull = uphill.nan_to_num(0.0, 0.0, 0.0).double() * unit * (ball.low < ball.high)
        ahead = sparse_direction(pull.flatten(1), keep).view_as(x) * unit
        ahead = here.double() + wide(radius * length, x) * ahead
        point = ball.project(torch.where(wide(turn, x), best.double(), ahead), radius)
        begun = changed(x, point)
        best_loss = torch.maximum(loss, s["best_loss"])
        lanes.state = {
            "point": point,
            "best": best,
            "gradient": best_gradient,
            "best_loss": torch.where(turn, -torch.inf, best_loss),
            "length": torch.where(turn, 1.0, length),
            "keep": torch.where(turn, begun / _FEWER, keep),
            "changed": torch.where(turn, begun, torch.where(check, found, s["changed"])),
        }

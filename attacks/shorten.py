"""Random search for a nearer adversarial example than one already found, by the predicted class.

As the boundary attack (Brendel, Rauber and Bethge, ICLR 2018) it only accepts what is misclassified
and nearer. Lengths of steps are drawn log-uniformly over all that can matter (Rowe and Hidovic,
GECCO 2004), so nothing has to adapt: short ones follow a boundary into its kinks. A share of them
is of the greatest length, and finds other regions that are misclassified, also thin ones that
gradients do not point to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.lanes import CLEAR, Lanes, Method, State
from attacks.losses import margin
from attacks.offsets import TINY, Offsets, length
from attacks.projections import PROJECTIONS
from attacks.randomness import advance, gaussian, uniform
from attacks.threat import ThreatModel

_LONGEST = 2.0  # step, in distances of the best find
_LONG = 0.3  # share of the steps that are as long as that
_DECADES = 3.5  # that lengths of the others range over
_MOST = 0.3  # of its distance that is taken off at once, and down to a thousandth of that
_LESS = 3.0


class Shorten(Method):
    """The search as a `Method`; any wrong class counts."""

    name, runs, gradients, strays = "shorten", 1, False, True

    def __init__(self, start: Tensor, found: Tensor, queries: int, threat: ThreatModel) -> None:
        """From `start`, (n, *shape): adversarial where `found`, (n,), the samples elsewhere."""
        self.start, self.found, self.threat = start, found, threat
        self.steps = queries - 1

    def begin(self, lanes: Lanes) -> State:
        """At the find; where there is none at the sample, with all of the box to look at."""
        frame = Offsets.around(self.threat, lanes.ball.x)
        start = self.start[lanes.sample]
        best = frame.of(start)
        known = self.found[lanes.sample][:, None]
        distance = torch.where(known, length(self.threat.norm, best), frame.farthest())
        return {"point": start, "best": best, "distance": distance}

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """The margin, which is not used beyond its sign."""
        return -margin(logits, lanes.y)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Keep a nearer find; then a random step from the best, pulled back to be nearer."""
        s, norm = lanes.state, self.threat.norm
        frame = Offsets.around(self.threat, lanes.ball.x)
        here = frame.of(s["point"])
        away = length(norm, here)
        clear = (loss > CLEAR * logits.abs().amax(1))[:, None]
        nearer = clear & (away < s["distance"])
        best = torch.where(nearer, here, s["best"])
        distance = torch.where(nearer, away, s["distance"])
        d = here.shape[1]
        keys = advance(lanes.keys, lanes.step * (4 * d + 3))
        noise = gaussian(keys, d).double()
        size, less, share = uniform(keys, 3, offset=3 * d).double().T[..., None]
        # of some features alone: near a face of the ball or the box the others are in the way
        noise = noise * (uniform(keys, d, offset=3 * d + 3).double() <= share)
        size = ((size - _LONG) / (1 - _LONG)).clamp_min(0.0)
        step = _LONGEST * 10 ** (-_DECADES * size) * distance
        ahead = best + step * noise / length(norm, noise).clamp_min(TINY)
        wanted = ((1 - _MOST * 10 ** (-_LESS * less)) * distance).clamp_min(TINY)
        low, high = frame.low / wanted, frame.high / wanted
        inside = PROJECTIONS[norm](ahead / wanted, low, high, 1.0)
        lanes.state = {"point": frame.place(wanted * inside), "best": best, "distance": distance}

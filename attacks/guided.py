"""Feature-guided black-box search (Wicker, Huang and Kwiatkowska, TACAS 2018).

Manipulating an input is a game of two players: the first picks a feature of it, the second what is
done to that feature. They work together here (the "cooperative" game), and a Monte-Carlo tree
search plays for both. It asks for logits alone.

Features of images are blobs, as SIFT finds them: peaks of a difference of Gaussians over place and
scale; one is picked by its salience, a point near it by a Gaussian, and a disk there, of a radius
by its size, is raised or lowered, in whole or in halves. Features of tables are the columns, and
their salience is the room which the threat model leaves them.

Of the paper's choices three are changed, since queries are few. A game is not played out at random
to its end: what counts is the margin at the position itself, which one query tells. Where a move
made things worse, the second player tries its opposite next. And a position gets new moves only as
the square root of its visits grows (progressive widening); in between, upper confidence bounds
choose the feature, then the move, and go down the tree. After `window` queries the best position of
the tree is the root of the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.keypoints import keypoints
from attacks.lanes import Lanes, Method, State
from attacks.losses import margin
from attacks.problem import Problem
from attacks.randomness import advance, gaussian, uniform
from attacks.rows import wide
from attacks.threat import ThreatModel

_FEATURES = 32  # keypoints of an image
_REACH = 1.5, 6.0  # radius of a disk, from and to, in standard deviations of its blob
_SPREAD = 3.0  # standard deviation of its place, likewise
_DEPTH = 8  # moves below the root
_BOUND = 0.5  # weight of the upper confidence bound, values being in [0, 1]
_STEP = 0.25  # length of a move in units of eps, for L2 and L1


@dataclass(frozen=True)
class GuidedConfig:
    """Settings of the search; every one of them is part of the protocol.

    Attributes:
        queries: Forward passes of one run, >= 1; the first looks at the sample itself.
        restarts: Runs, >= 1; a sample stops at the first that breaks it.
        window: Queries of one tree, >= 1.
    """

    queries: int = 1000
    restarts: int = 1
    window: int = 4

    def __post_init__(self) -> None:
        if min(self.queries, self.restarts, self.window) < 1:
            raise AttackError(
                f"queries is {self.queries}, restarts {self.restarts} and window {self.window}: "
                "all must be at least 1"
            )


class Guided(Method):
    """The search as a `Method`."""

    name = "guided"
    gradients = False

    def __init__(self, config: GuidedConfig, problem: Problem) -> None:
        self.runs, self.steps, self.window = config.restarts, config.queries - 1, config.window
        x = problem.x
        self.image = x.dim() == 4
        room = _room(problem.threat, x)
        if self.image:
            found = [keypoints(part, _FEATURES) for part in torch.split(x, 256)]
            self.places = torch.cat(found)
            free = room.amax(1).flatten(1)
            spot = (self.places[..., 0] * x.shape[3] + self.places[..., 1]).long()
            weight = self.places[..., 3] * (free.gather(1, spot) > 0)
        else:
            weight = room.flatten(1)
        weight = weight.double() + 1e-6 * weight.amax(1, keepdim=True) + 1e-30
        self.weight = weight.cumsum(1)

    def begin(self, lanes: Lanes) -> State:
        """At the sample, with an empty tree."""
        x = lanes.ball.x
        table = torch.zeros(len(x), self.window + 1, dtype=torch.float64, device=x.device)
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return {
            "point": x,
            "positions": x[:, None].expand(-1, self.window + 1, *x.shape[1:]).clone(),
            "value": table,
            "total": table,
            "visits": table,
            "parent": table.long() - 1,
            "feature": table.long(),
            "from": none - 1,
            "by": none,
            "filled": none,
            "stamp": torch.zeros_like(x),
            "mirrored": none.bool(),
            "worse": none.bool(),
        }

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """How far the true class is behind."""
        return -margin(logits, lanes.y)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Add the position to the tree, choose the next one."""
        s = lanes.state
        rows, node = torch.arange(len(loss), device=loss.device), s["filled"]
        value = loss.nan_to_num(-1e9).double().clamp(-1e9, 1e9)
        for name, entry in (("positions", s["point"]), ("value", value), ("total", value)):
            s[name][rows, node] = entry
        s["visits"][rows, node] = 1.0
        s["parent"][rows, node], s["feature"][rows, node] = s["from"], s["by"]
        above = s["from"]
        for _ in range(_DEPTH):
            at, real = above.clamp_min(0), (above >= 0).double()
            s["visits"][rows, at] += real
            s["total"][rows, at] += real * value
            above = torch.where(above >= 0, s["parent"][rows, at], above)
        s["worse"] = value < torch.where(s["from"] < 0, -torch.inf, s["value"][rows, s["from"]])
        s["filled"] = node + 1
        before = s["from"]
        self._replant(s, rows)
        s["from"] = self._select(s, rows)
        again = s["worse"] & (s["from"] == before) & ~s["mirrored"]
        self._play(lanes, s, s["positions"][rows, s["from"]], again)

    def _replant(self, s: State, rows: Tensor) -> None:
        """Where the tree is full, its best position becomes the root of an empty one."""
        full = s["filled"] > self.window
        best = torch.where(full, s["value"].argmax(1), 0)
        s["positions"][:, 0] = s["positions"][rows, best]
        kept = s["value"][rows, best]
        s["value"][:, 0] = kept
        s["total"][:, 0] = torch.where(full, kept, s["total"][:, 0])
        s["visits"][:, 0] = torch.where(full, 1.0, s["visits"][:, 0])
        s["filled"] = torch.where(full, 1, s["filled"])
        gone = full[:, None] & (torch.arange(self.window + 1, device=rows.device) > 0)
        s["parent"] = s["parent"].masked_fill(gone, -1)

    def _select(self, s: State, rows: Tensor) -> Tensor:
        """The position from which a new move is made, by upper confidence bounds."""
        index = torch.arange(self.window + 1, device=rows.device)
        used = index < s["filled"][:, None]
        low = torch.where(used, s["value"], torch.inf).amin(1, keepdim=True)
        high = torch.where(used, s["value"], -torch.inf).amax(1, keepdim=True)
        spread = (high - low).clamp_min(1e-30)
        visits = s["visits"] * used
        total = (s["total"] - low * s["visits"]) / spread * used
        same = s["feature"][:, :, None] == s["feature"][:, None, :]
        here, open_ = torch.zeros_like(rows), torch.ones_like(rows, dtype=torch.bool)
        for _ in range(_DEPTH - 1):
            kids = (s["parent"] == here[:, None]) & used
            plays = visits[rows, here][:, None]
            open_ = open_ & (kids.sum(1) >= plays[:, 0].sqrt())
            group = (same & kids[:, None, :]).double()
            features = _bounds(
                (group * total[:, None]).sum(2), (group * visits[:, None]).sum(2), plays
            )
            feature = s["feature"][rows, torch.where(kids, features, -torch.inf).argmax(1)]
            moves = _bounds(total, visits, plays)
            fits = kids & (s["feature"] == feature[:, None])
            child = torch.where(fits, moves, -torch.inf).argmax(1)
            here = torch.where(open_, child, here)
            if not bool(open_.any()):
                break
        return here

    def _play(self, lanes: Lanes, s: State, position: Tensor, again: Tensor) -> None:
        """Pick a feature and what is done to it."""
        channels = position.shape[1] if self.image else 0
        keys = advance(lanes.keys, lanes.step * (16 + channels))
        numbers = uniform(keys, 5 + channels, offset=6)
        weight = self.weight[lanes.sample]
        feature = (weight < numbers[:, :1].double() * weight[:, -1:]).sum(1)
        s["by"] = torch.where(again, s["by"], feature.clamp_max(weight.shape[1] - 1))
        sign = torch.where(numbers[:, 1] < 0.5, -1.0, 1.0)
        if self.image:
            stamp = self._disk(lanes, s["by"], gaussian(keys, 2), numbers)
        else:
            chosen = torch.arange(weight.shape[1], device=keys.device) == s["by"][:, None]
            stamp = chosen.float().view_as(position)
        stamp = torch.where(wide(again, stamp), -s["stamp"], stamp * wide(sign, stamp))
        s["stamp"], s["mirrored"] = stamp, again
        s["point"] = _press(lanes.ball, position, stamp)

    def _disk(self, lanes: Lanes, feature: Tensor, jitter: Tensor, numbers: Tensor) -> Tensor:
        """A disk near the keypoint, in one piece or in two halves of opposite sign."""
        height, width = lanes.ball.x.shape[2:]
        place = self.places[lanes.sample, feature]
        share = numbers[:, 4] * numbers[:, 4]  # no power: it may round otherwise at other places
        radius = place[:, 2] * (_REACH[0] + (_REACH[1] - _REACH[0]) * share)
        centre = (place[:, :2] + _SPREAD * jitter * place[:, 2:3]).round()
        down, right = centre[:, 0].clamp(0, height - 1), centre[:, 1].clamp(0, width - 1)
        y = torch.arange(height, device=place.device)[:, None] - down[:, None, None]
        x = torch.arange(width, device=place.device) - right[:, None, None]
        disk = (y * y + x * x <= radius[:, None, None] ** 2).float()
        kind = (numbers[:, 2] * 3).long()[:, None, None]
        half = torch.where(kind == 1, y, torch.where(kind == 2, x, 0.0))
        disk = disk * torch.where(half >= 0, 1.0, -1.0)
        apart = (numbers[:, 3] < 0.5)[:, None] & (numbers[:, 5:] < 0.5)
        return disk[:, None] * torch.where(apart, -1.0, 1.0)[:, :, None, None]


def _room(threat: ThreatModel, x: Tensor) -> Tensor:
    """How far each feature may move, in units of eps."""
    low, high = threat.bounds(x)
    return (high - low) / (1.0 if threat.scale is None else threat.scale)


def _bounds(total: Tensor, visits: Tensor, plays: Tensor) -> Tensor:
    """Upper confidence bounds (Kocsis and Szepesvari 2006)."""
    seen = visits.clamp_min(1.0)
    return total / seen + _BOUND * (2.0 * plays.clamp_min(1.0).log() / seen).sqrt()


def _press(ball: Ball, position: Tensor, stamp: Tensor) -> Tensor:
    """Move the features of `stamp` by its signs: Linf to the end of the ball, else by a step."""
    if ball.threat.norm == "linf":
        moved = torch.where(stamp > 0, ball.high, position)
        return torch.where(stamp < 0, ball.low, moved)
    unit = 1.0 if ball.threat.scale is None else ball.threat.scale.double()
    order = 2 if ball.threat.norm == "l2" else 1
    length = torch.linalg.vector_norm(stamp.double().flatten(1), order, dim=1).clamp_min(1e-30)
    share = _STEP * ball.threat.eps / wide(length, stamp)
    return ball.project(position.double() + stamp.double() * unit * share)


@Attack
def guided(config: GuidedConfig, problem: Problem) -> Method:
    """Feature-guided search.

    Images are (channels, height, width); samples of any other shape are tables.
    """
    return Guided(config, problem)

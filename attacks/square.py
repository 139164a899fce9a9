"""Square Attack (Andriushchenko et al., ECCV 2020): random search over windows, by logits alone.

Linf and L2 are that paper's algorithms 2 and 3. L1 (Croce and Hein, "Mind the box", ICML 2021) is
algorithm 3 with the budget counted in L1, and patterns that fall more steeply. All project exactly
onto (norm ball and box).

An input of shape (..., height, width) is an image, its other dimensions are channels. A vector has
no neighbourhoods: its windows are runs of consecutive features that may change, and each feature
draws a sign of its own, as a channel of an image does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.lanes import Lanes, Method, State
from attacks.losses import margin
from attacks.problem import Problem
from attacks.randomness import advance, uniform
from attacks.rows import wide
from attacks.threat import ThreatModel

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_OF = 10_000
_TILES = 5  # of the starting point of L2 and L1, along each side
_FALL = {"linf": 2, "l2": 2, "l1": 4}  # the power by which a pattern's terms fall
_TINY = 1e-300


@dataclass(frozen=True)
class SquareConfig:
    """Settings of Square Attack; every one of them is part of the protocol.

    Attributes:
        queries: Forward passes of one run, >= 2, the starting point included.
        restarts: Independent runs, >= 1; a sample stops at the first that breaks it.
        p: Share of the pixels in the first windows, in (0, 1]; see `shares`.
        rescale: Whether windows shrink as in 10,000 queries, however many there are; without it
            after the same queries as there, which fewer ones never reach.
    """

    queries: int = 5000
    restarts: int = 1
    p: float = 0.8
    rescale: bool = True

    def __post_init__(self) -> None:
        if self.queries < 2 or self.restarts < 1:
            raise AttackError(
                f"queries is {self.queries} and restarts {self.restarts}: "
                "they must be at least 2 and 1"
            )
        if not 0 < self.p <= 1:
            raise AttackError(f"p is {self.p}: it is a share of the pixels, above 0 and at most 1")


def shares(p: float, queries: int, rescale: bool = True) -> list[float]:
    """Share of the pixels in the window of each step (section 3, "size of squares").

    `p` is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries; other
    numbers of queries stretch or shrink that if `rescale`. (The paper's text lacks the 500 of its
    experiments.)
    """
    of = queries / _OF if rescale else 1.0
    marks = [mark * of for mark in _HALVINGS]
    return [p / 2 ** sum(step > mark for mark in marks) for step in range(1, queries)]


def _pyramid(rows: int, columns: int, fall: int) -> Tensor:
    """Equation 1 (where `fall` is 2): weights that fall from the middle of a window to its rim."""
    middle = max(rows, columns) // 2
    down = (torch.arange(rows) - rows // 2).abs()[:, None]
    across = (torch.arange(columns) - columns // 2).abs()[None, :]
    terms = 1.0 / torch.arange(1, middle + 2, dtype=torch.float64) ** fall
    return terms.flip(0).cumsum(0).flip(0)[torch.maximum(down, across)]


def pattern(rows: int, columns: int, fall: int = 2) -> Tensor:
    """Equation 2: two pyramids of opposite signs, side by side, float64, (rows, columns)."""
    if rows == 1 < columns:
        return pattern(columns, 1, fall).T
    half = rows // 2
    return torch.cat([_pyramid(half, columns, fall), -_pyramid(rows - half, columns, fall)])


class Square(Method):
    """Square Attack as a `Method`."""

    name = "square"
    gradients = False

    def __init__(self, config: SquareConfig, threat: ThreatModel, shape: tuple[int, ...]) -> None:
        self.runs, self.steps = config.restarts, config.queries - 1
        self.eps, device = threat.eps, threat.lower.device
        self.unit: Tensor | float = 1.0 if threat.scale is None else threat.scale.double()
        self.height, self.width = (1, *shape)[-2:]
        self.size = torch.Size(shape).numel()
        self.channels = self.size // max(self.height * self.width, 1)
        if threat.norm == "l0":
            raise AttackError("the Square Attack is for linf, l2, l1, not for l0")
        self.power = {"linf": 0, "l2": 2, "l1": 1}[threat.norm]
        self.fall = _FALL[threat.norm]
        held = threat.immutable
        held = torch.zeros(shape, dtype=torch.bool) if held is None else held
        free = (~held).flatten()
        self.free = free.view(self.channels, self.height, self.width).double().to(device)
        self.vector = self.size == self.width
        self.row, self.column = torch.arange(self.height), torch.arange(self.width)
        if self.vector:  # the features that may change, numbered; the others are in no window
            self.column = torch.where(free, free.cumsum(0) - 1, -1).cpu()
        self.across = int(self.column.max()) + 1 if self.vector else self.width
        self.signs = self.width if self.vector else self.channels
        sizes = [self._window(share) for share in shares(config.p, config.queries, config.rescale)]
        kinds = sorted(set(sizes), reverse=True)
        widest = max(max(kind) for kind in kinds)
        self.patterns = torch.zeros(len(kinds), widest, widest, dtype=torch.float64, device=device)
        for number, (rows, columns) in enumerate(kinds):
            self.patterns[number, :rows, :columns] = pattern(rows, columns, self.fall)
        self.kind = torch.tensor([kinds.index(size) for size in sizes] + [0], device=device)
        self.rows, self.columns = torch.tensor([*sizes, (1, 1)], device=device).T
        self.row, self.column = self.row.to(device), self.column.to(device)

    def _window(self, share: float) -> tuple[int, int]:
        """Height and width of a window: a square, or a run of a vector's features.

        Squares of L2 and L1 have a middle: their sides are odd, as in the published code.
        """
        least = 3 if self.power else 1
        if self.vector:
            return 1, max(min(max(round(share * self.across), least), self.across), 1)
        side = max(round((share * self.height * self.width) ** 0.5), least)
        side += self.power > 0 and side % 2 == 0
        side = min(side, self.height, self.width)
        return side, side

    def begin(self, lanes: Lanes) -> State:
        """Stripes at the ends of the ball for Linf; a grid of patterns for L2 and L1."""
        x, n = lanes.ball.x, len(lanes.keys)
        tall, wide = (1, 1) if self.vector else (self.height // _TILES, self.width // _TILES)
        tall, wide = (self.height, 1) if self.power == 0 else (max(tall, 1), max(wide, 1))
        down, across = -(-self.height // tall), -(-self.width // wide)
        noise = uniform(lanes.keys, self.channels * down * across)
        signs = (2.0 * (noise < 0.5).double() - 1.0).view(n, self.channels, down, across)
        signs = signs.repeat_interleave(tall, 2).repeat_interleave(wide, 3)
        signs = signs[:, :, : self.height, : self.width]
        if self.power == 0:
            point = torch.where(signs.reshape(x.shape) > 0, lanes.ball.high, lanes.ball.low)
        else:
            row = torch.arange(self.height)[:, None] % tall
            weights = pattern(tall, wide, self.fall)[row, torch.arange(self.width) % wide].to(
                x.device
            )
            grid = (signs * weights * self.free).flatten(1)
            length = torch.linalg.vector_norm(grid, self.power, dim=1, keepdim=True)
            grid = self.eps * _over(grid, length).view(x.shape)
            point = lanes.ball.project(x.double() + grid * self.unit)
        low = torch.full((n,), -torch.inf, device=x.device)
        return {"point": point, "best": point, "best_loss": low}

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """The margin, turned round: the paper's loss for untargeted attacks."""
        return -margin(logits, lanes.y)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Algorithm 1: keep the point if it is better, then try the best with a window changed."""
        s = lanes.state
        loss = loss.nan_to_num(-torch.inf)
        better = (loss > s["best_loss"]) | (lanes.step == 0)
        best = torch.where(wide(better, s["point"]), s["point"], s["best"])
        numbers = 5 + self.signs
        noise = uniform(advance(lanes.keys, self.size + lanes.step * numbers), numbers)
        signs = 2.0 * (noise[:, 5:] < 0.5).double() - 1.0
        signs = signs.view(-1, 1, 1, self.signs) if self.vector else signs[:, :, None, None]
        change = self._ends if self.power == 0 else self._moved
        lanes.state = {
            "point": change(lanes, best, noise, signs),
            "best": best,
            "best_loss": torch.where(better, loss, s["best_loss"]),
        }

    def _places(self, step: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A window at random: rows and columns from its corner, and what lies in it.

        Returns:
            (n, height, 1), (n, 1, width), and bool, (n, 1, height, width).
        """
        rows, columns, u = self.rows[step], self.columns[step], noise.double()
        top = (u[:, 0] * (self.height - rows + 1)).long()
        left = (u[:, 1] * (self.across - columns + 1).clamp_min(1)).long()
        down = (self.row - top[:, None])[:, :, None]
        across = (self.column - left[:, None])[:, None, :]
        inside = (down >= 0) & (down < rows[:, None, None]) & (self.column >= 0)
        inside = inside & (across >= 0) & (across < columns[:, None, None])
        return down, across, inside[:, None]

    def _ends(self, lanes: Lanes, best: Tensor, noise: Tensor, signs: Tensor) -> Tensor:
        """Algorithm 2: each channel of the window goes to one end of what is legal.

        Where that changes nothing it goes to the other end, or the query would be wasted.
        """
        shape = (len(best), self.channels, self.height, self.width)
        low, high, here = (z.reshape(shape) for z in (lanes.ball.low, lanes.ball.high, best))
        inside = self._places(lanes.step, noise)[2]
        moved = torch.where(inside, torch.where(signs > 0, high, low), here)
        other = torch.where(inside, torch.where(signs > 0, low, high), here)
        same = wide((moved == here).flatten(1).all(1), here)
        return torch.where(same, other, moved).view_as(best)

    def _moved(self, lanes: Lanes, best: Tensor, noise: Tensor, signs: Tensor) -> Tensor:
        """Algorithm 3: the budget of a second window, and what is unused, goes to the first."""
        shape = (len(best), self.channels, self.height, self.width)
        exact = lanes.ball.x.double()
        offset = ((best.double() - exact) / self.unit).reshape(shape)
        down, across, first = self._places(lanes.step, noise)
        second = self._places(lanes.step, noise[:, 2:])[2]
        turned = ((noise[:, 4] < 0.5) & (self.height > 1)).view(-1, 1, 1)
        down, across = torch.where(turned, across, down), torch.where(turned, down, across)
        last = self.patterns.shape[1] - 1
        kind = self.kind[lanes.step][:, None, None]
        weights = self.patterns[kind, down.clamp(0, last), across.clamp(0, last)][:, None]
        bump = weights * signs * (first * self.free)
        old = offset * first
        new = _over(bump, self._norm(bump)) + _over(old, self._norm(old))
        cancelled = self._norm(new) < 1e-6
        new = torch.where(cancelled, bump, new)
        freed = self._norm(offset * (first | second)) ** self.power
        total = wide(torch.linalg.vector_norm(offset.flatten(1), self.power, dim=1), offset)
        unused = (self.eps**self.power - total**self.power).clamp_min(0.0)
        budget = (freed + unused / self.channels) ** (1.0 / self.power)
        kept = torch.where(first | second, 0.0, offset)
        moved = kept + budget * _over(new, self._norm(new))
        return lanes.ball.project(exact + moved.view_as(exact) * self.unit)

    def _norm(self, z: Tensor) -> Tensor:
        """Norm of each channel, (n, channels, 1, 1)."""
        found: Tensor = torch.linalg.vector_norm(z, self.power, dim=(2, 3), keepdim=True)
        return found


def _over(z: Tensor, length: Tensor) -> Tensor:
    """`z / length`, 0 where that is 0."""
    return z / length.clamp_min(_TINY)


@Attack
def square(config: SquareConfig, problem: Problem) -> Method:
    """Square Attack."""
    return Square(config, problem.threat, tuple(problem.x.shape[1:]))

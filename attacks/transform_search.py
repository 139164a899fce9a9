"""A search over simple transformations, weakest first: as a threat of its own, and in a norm ball.

The grid is that of `attacks.transformations`; after it come random mixtures of its entries. As a
threat of its own ("transform") the only limits are the ranges of the strengths and the box. In a
norm ball every candidate is projected into the ball: a cheap attack that asks for predictions
alone and needs to know nothing of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.entry import Attack
from attacks.errors import AttackError
from attacks.images import from_unit, to_unit
from attacks.lanes import Lanes, Method, State, drive
from attacks.losses import margin
from attacks.problem import Problem
from attacks.randomness import advance, stream_keys, uniform
from attacks.result import AttackResult, Progress
from attacks.threat import ThreatModel
from attacks.transformations import (
    FAMILIES,
    FAMILY,
    FamilyName,
    check_families,
    families_for,
    transform,
)

_MIXTURES = 1 << 40  # where the numbers that choose mixtures begin: beyond those of the noise


@dataclass(frozen=True)
class TransformConfig:
    """Settings of the search; every one of them is part of the protocol.

    Attributes:
        levels: Strengths of each family, >= 1: 1/levels, 2/levels, ... 1 of the strongest.
        draws: Random mixtures tried after the grid, >= 0: of each family, with probability 1/2,
            any one entry of the grid, all of them on top of each other.
        families: Those to use; None: all that apply to the samples.
    """

    levels: int = 6
    draws: int = 40
    families: tuple[FamilyName, ...] | None = None

    def __post_init__(self) -> None:
        if self.levels < 1 or self.draws < 0:
            raise AttackError(
                f"levels is {self.levels} and draws {self.draws}: at least 1 and 0 are needed"
            )
        if self.families is not None and not self.families:
            raise AttackError(f"no families: use some of {', '.join(FAMILIES)}, or None for all")


class Transformations(Method):
    """The search as a `Method`. Step 0 is the sample itself.

    Attributes:
        names: The families used.
        family: Family of each entry of the grid, -1 for the sample itself, int64, (entries,).
        level: Strength of each entry, in levels; 0 for the sample itself, int64, (entries,).
    """

    name = "transformations"
    runs = 1
    gradients = False

    def __init__(self, config: TransformConfig, x: Tensor) -> None:
        shape, device = x.shape[1:], x.device
        self.names = config.families or families_for(shape)
        check_families(self.names, shape)
        self.levels, side = config.levels, min(shape[-2:])
        entries = [
            (family, level, variant)
            for level in range(1, config.levels + 1)
            for family, name in enumerate(self.names)
            for variant in range(FAMILY[name].variants)
        ]
        self.steps = len(entries) + config.draws
        table = torch.tensor([(-1, 0, 0), *entries], device=device)
        self.family, self.level = table[:, 0], table[:, 1]
        self.settings, self.entries = [], []
        """Of each family, settings by (level, variant), and the entry of each of these rows."""
        for family, name in enumerate(self.names):
            kind = FAMILY[name]
            rows = [
                kind.settings(kind.most * level / config.levels, variant, side)
                for other, level, variant in entries
                if other == family
            ]
            self.settings.append(torch.tensor(rows, dtype=torch.float64, device=device))
            self.entries.append((self.family == family).nonzero()[:, 0])

    def begin(self, lanes: Lanes) -> State:
        """At the sample: nothing is to be done where it is misclassified as it is."""
        return {"point": lanes.ball.x}

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """How near the sample is to another class."""
        return -margin(logits, lanes.y)

    def mixture(self, keys: Tensor, draw: Tensor) -> Tensor:
        """The entries of random mixtures, one of each family; 0 where it is left out.

        Args:
            keys: Stream of each sample, int64, (n,).
            draw: Number of the mixture, from 0, int64, (n,).

        Returns:
            int64, (n, families).
        """
        count = len(self.names)
        number = uniform(advance(keys, draw * (2 * count) + _MIXTURES), 2 * count)
        picked = [
            entries[(number[:, f] * len(entries)).long()] * (number[:, count + f] < 0.5)
            for f, entries in enumerate(self.entries)
        ]
        return torch.stack(picked, 1)

    def chosen(self, keys: Tensor, step: Tensor) -> Tensor:
        """What is tried at some steps: the entry of each family or 0, int64, (n, families)."""
        grid = step.clamp(max=len(self.family) - 1)
        single = torch.arange(len(self.names), device=step.device) == self.family[grid][:, None]
        later = step >= len(self.family)
        if not bool(later.any()):
            return single * grid[:, None]
        mixed = self.mixture(keys, (step - len(self.family)).clamp_min(0))
        return torch.where(later[:, None], mixed, single * grid[:, None])

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """The next entry of the grid, or the next mixture, projected."""
        ball, threat = lanes.ball, lanes.problem.threat
        step = (lanes.step + 1).clamp(max=self.steps)
        unit = to_unit(ball.x, threat.lower, threat.upper)
        changed = unit
        for name, entry, settings, entries in zip(
            self.names,
            self.chosen(lanes.keys, step).T,
            self.settings,
            self.entries,
            strict=True,
        ):
            rows = ((entry > 0) & lanes.live).nonzero()[:, 0]
            if len(rows):
                its = settings[torch.searchsorted(entries, entry[rows])]
                done = transform(changed[rows], name, its, lanes.keys[rows])
                changed = changed.index_copy(0, rows, done)
        points = from_unit(changed, unit, ball.x, threat.lower, threat.upper)
        lanes.state = {"point": ball.project(points)}


@Attack
def transformations(config: TransformConfig, problem: Problem) -> Method:
    """Try the transformations within a norm ball."""
    return Transformations(config, problem.x)


@dataclass(eq=False)
class TransformResult:
    """What simple transformations do to each sample; all (n,) but `names`.

    Attributes:
        broken: Whether any of the transformations tried changes the prediction.
        family: Which, as a position in `names`, int64; -1 where none does, or none is needed
            because the sample is misclassified as it is.
        share: The smallest strength of the grid that does, as a share of the range of its family
            (of several at the same share the first), float64; of a mixture, which only counts
            where the grid does not break the sample, its strongest part; 0 where none is needed;
            infinite where none does.
        strength: The same in the unit of the family (`attacks.transformations.FAMILY`).
        queries: Predictions asked for, int64.
        adversarial: The transformed sample, float32, (n, *shape); the sample where none does.
        names: The families, and "mix".
        search: The same as any attack's, to be judged.
    """

    broken: Tensor
    family: Tensor
    share: Tensor
    strength: Tensor
    queries: Tensor
    adversarial: Tensor
    names: tuple[str, ...]
    search: AttackResult


def transform_threat(lower: Tensor, upper: Tensor) -> ThreatModel:
    """A ball that holds the whole box, for a threat that is not one."""
    return ThreatModel("linf", torch.finfo(torch.float32).max, lower, upper)


def transform_attack(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    lower: Tensor,
    upper: Tensor,
    config: TransformConfig,
    seed: int,
    confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
) -> TransformResult:
    """Find the weakest transformation that breaks each sample; no norm ball limits it.

    Args:
        classifier: The model, in tiles.
        x: Samples inside the box, float32, (n, *shape), on the model's device.
        y: True classes, int64, (n,).
        ids: Sample ids that key the noise, int64, (n,).
        lower: Lower end of the input box, a scalar or of the shape of a sample.
        upper: Upper end, likewise.
        config: Families and strengths.
        seed: Seed of the noise.
        confirm: See `attacks.problem.Problem`.
        progress: Called with (samples finished, samples broken) as they change.
    """
    problem = Problem(
        classifier,
        x,
        y,
        ids,
        transform_threat(lower, upper),
        seed,
        None,
        confirm,
        progress=progress,
    )
    method = Transformations(config, x)
    found = drive(problem, method)
    keys = stream_keys(seed, method.name, ids.tolist(), 0).to(x.device)
    entry = method.chosen(keys, found.iteration.clamp_min(0))
    levels, mixed = method.level[entry], found.iteration >= len(method.family)
    share = levels.amax(1).double() / method.levels
    family = torch.where(mixed, len(method.names), levels.argmax(1))
    family = torch.where(found.iteration > 0, family, -1)
    most = torch.tensor([FAMILY[name].most for name in method.names] + [1.0], dtype=torch.float64)
    share = torch.where(found.found, share, torch.inf)
    return TransformResult(
        broken=found.found,
        family=family,
        share=share,
        strength=share * most.to(x.device)[family],
        queries=found.forwards,
        adversarial=found.adversarial,
        names=(*method.names, "mix"),
        search=found,
    )

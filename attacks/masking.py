"""Searches on a few samples, side by side, that show where a search by gradients fails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.halving import HalvingConfig
from attacks.losses import margin
from attacks.pgd import PGDConfig
from attacks.randomness import advance, stream_keys
from attacks.registry import AttackConfig, kind_of
from attacks.square import SquareConfig
from attacks.substitute import substitute_of, transferred
from attacks.threat import ThreatModel, diameter

_DRAWS = 10
_SHORT = PGDConfig(steps=10, restarts=1, loss="margin")
_LONG = HalvingConfig(steps=8)
"""Of 2 classes 107 gradients, of 10 classes 229: with their forward passes more work than these
queries."""
_QUERIES = SquareConfig(queries=200)
_STILL = 0.1
"""Of the drop that the gradient promises. Honest models give 70% to 400% of it at most samples."""


@dataclass(eq=False)
class Probe:
    """Samples that the model gets right, and what the probes share.

    Attributes:
        classifier: The model.
        x: The samples, (n, *shape), n >= 1.
        y: True classes, (n,).
        ids: Sample ids, on the CPU, (n,).
        threat: What the attacker may do.
        seed: Seed of all noise.
        logits: Of the samples, (n, classes).
    """

    classifier: TiledClassifier
    x: Tensor
    y: Tensor
    ids: Tensor
    threat: ThreatModel
    seed: int
    logits: Tensor

    def attack(
        self, config: AttackConfig, eps: float | None = None, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Which samples an attack breaks, bool, and the lowest margin it meets.

        Args:
            config: The attack.
            eps: Another radius than the threat model's.
            rows: Samples to attack, bool, (n,); the others are not broken.
        """
        threat = self.threat if eps is None else replace(self.threat, eps=eps)
        rows = torch.ones_like(self.y, dtype=torch.bool) if rows is None else rows
        x, y, ids = self.x[rows], self.y[rows], self.ids[rows.cpu()]
        result = kind_of(config).run(self.classifier, x, y, ids, threat, config, self.seed)
        found, lowest = torch.zeros_like(rows), torch.full_like(self.logits[:, 0], torch.inf)
        found[rows], lowest[rows] = result.found, result.lowest
        return found, lowest

    @cached_property
    def gradient(self) -> Tensor:
        """Gradient of the margin at each sample."""
        size, parts = self.classifier.tiles[0], []
        for start in range(0, len(self.x), size):
            x, y = (self.classifier.pad(t[start : start + size], size) for t in (self.x, self.y))
            _, gradient = self.classifier.logits_and_gradient(x, partial(margin, y=y))
            parts.append(gradient[: len(self.x) - start])
        return torch.cat(parts)

    def promised(self) -> Tensor:
        """How far the margin falls, to first order, one step of length eps along its gradient.

        Returns:
            float64, (n,): of the step that the attack would take, which the box shortens.
        """
        ball = Ball.around(self.threat, self.x)
        ahead = ball.step(self.x, -self.gradient, self.threat.eps)
        return ((self.x.double() - ahead.double()) * self.gradient.double()).flatten(1).sum(1)

    def keys(self, name: str) -> Tensor:
        """A stream of noise for each sample."""
        return stream_keys(self.seed, f"diagnose-{name}", self.ids.tolist(), 0).to(self.x.device)


STILL_AT_FIRST = "loss-stands-still by the first probes"


def of_searches(probe: Probe, surrogate: TiledClassifier | None) -> dict[str, Tensor | None]:
    """The flags that take searches, by name: the samples each holds of, bool, (n,).

    `STILL_AT_FIRST` is how records were diagnosed before eps was looked at.
    """
    found, lowest = probe.attack(_SHORT)
    half, _ = probe.attack(_SHORT, probe.threat.eps / 2)
    black, transfer = probe.attack(_QUERIES, rows=~found)[0], _transferred(probe, ~found, surrogate)
    white = probe.attack(_LONG, rows=black | transfer)[0]  # of the others nothing is said
    return {
        "loss-stands-still": ~found & _still(probe, lowest),
        STILL_AT_FIRST: ~found & _hardly(probe, lowest),
        "noise-beats-gradient": ~found & (_drawn(probe) < lowest),
        "not-monotone": half & ~found,
        "holds-at-any-eps": _holds(probe),
        "black-box-beats-white-box": black & ~white,
        "transfer-beats-white-box": transfer & ~white,
    }


def _hardly(probe: Probe, lowest: Tensor) -> Tensor:
    """Rows whose margin falls by less than a hundredth of itself."""
    return lowest > 0.99 * margin(probe.logits, probe.y)


def _still(probe: Probe, lowest: Tensor) -> Tensor:
    """Rows whose margin falls far less than its gradient promises, or hardly where it is zero.

    A drop in itself says nothing: at a small eps no margin falls far.
    """
    drop = (margin(probe.logits, probe.y) - lowest).double()
    promised = probe.promised()
    return torch.where(promised == 0, _hardly(probe, lowest), drop < _STILL * promised)


def _holds(probe: Probe) -> Tensor | None:
    """Rows not broken at a radius that reaches all of the box, though something there breaks them.

    That is an input of the box of another class: another sample, or a random point. Of a model
    that calls everything alike every sample truly holds. What may not change can hold a class for
    good, and then nothing can be said.
    """
    if probe.threat.immutable is not None and bool(probe.threat.immutable.any()):
        return None
    everything = 1.01 * diameter(probe.threat, tuple(probe.x.shape[1:]))
    far = Ball.around(replace(probe.threat, eps=everything), probe.x).outermost(probe.keys("far"))
    seen = torch.cat([probe.logits, probe.classifier.logits(far)]).argmax(1)
    breakable = (seen[None, :] != probe.y[:, None]).any(1)
    return breakable & ~probe.attack(_LONG, everything)[0]


def _transferred(probe: Probe, rows: Tensor, surrogate: TiledClassifier | None) -> Tensor:
    found = torch.zeros_like(rows)
    if not bool(rows.any()):
        return found
    model, threat, seed = probe.classifier, probe.threat, probe.seed
    if surrogate is None:
        surrogate = substitute_of(model, probe.x, probe.ids, threat, seed)
    x, y, ids = probe.x[rows], probe.y[rows], probe.ids[rows.cpu()]
    found[rows] = transferred(surrogate, model, x, y, ids, threat, seed)
    return found


def _drawn(probe: Probe) -> Tensor:
    """Lowest margin over random points of the ball."""
    ball, keys = Ball.around(probe.threat, probe.x), probe.keys("noise")
    step = 4 * probe.x[0].numel()
    points = (ball.outermost(advance(keys, torch.full_like(keys, i * step))) for i in range(_DRAWS))
    gaps = [margin(probe.classifier.logits(point), probe.y) for point in points]
    return torch.stack(gaps).amin(0)

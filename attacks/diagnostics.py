"""Signs that an attack failed rather than that a model held: gradient masking, by measurement.

Probes on a few samples, cheap beside an evaluation, after the checklists of Carlini et al. 2019
("On evaluating adversarial robustness") and Pintor et al., NeurIPS 2022 ("Indicators of attack
failure"). Each is a number with a limit; beyond it, robustness that was measured is not to be
trusted, and no one has to notice that by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.halving import HalvingConfig
from attacks.losses import margin
from attacks.pgd import PGDConfig
from attacks.randomness import advance, stream_keys
from attacks.registry import AttackConfig, kind_of
from attacks.threat import ThreatModel

SAMPLES = 64
_EXPLODED = 1e10
_DRAWS = 10
_SHORT = PGDConfig(steps=10, restarts=1, loss="margin")
_LONG = HalvingConfig(steps=8)


@dataclass(frozen=True)
class Flag:
    """One sign.

    Attributes:
        name: In a word.
        value: What was measured, a share of the samples that were looked at; None where it cannot
            be said for this threat model.
        limit: Values above it are a red flag.
        meaning: What a value of 1 says.
    """

    name: str
    value: float | None
    limit: float
    meaning: str

    @property
    def red(self) -> bool:
        """Whether robustness measured on this model is not to be trusted."""
        return self.value is not None and self.value > self.limit


@dataclass(eq=False)
class _Probe:
    """Samples that the model gets right, and what the probes share."""

    classifier: TiledClassifier
    x: Tensor
    y: Tensor
    ids: Tensor
    threat: ThreatModel
    seed: int
    logits: Tensor

    def attack(self, eps: float, config: AttackConfig) -> tuple[Tensor, Tensor]:
        """Which samples an attack breaks at `eps`, and the lowest margin it meets."""
        threat, run = replace(self.threat, eps=eps), kind_of(config).run
        found = run(self.classifier, self.x, self.y, self.ids, threat, config, self.seed)
        return found.found, found.lowest

    def gradient(self) -> Tensor:
        """Gradient of the margin at each sample."""
        size, parts = self.classifier.tiles[0], []
        for start in range(0, len(self.x), size):
            x, y = (self.classifier.pad(t[start : start + size], size) for t in (self.x, self.y))
            _, gradient = self.classifier.logits_and_gradient(x, partial(margin, y=y))
            parts.append(gradient[: len(self.x) - start])
        return torch.cat(parts)


def diagnose(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    seed: int = 0,
    samples: int = SAMPLES,
) -> tuple[Flag, ...]:
    """Look for signs that attacks by gradient fail on a model.

    Args:
        classifier: The model, in tiles.
        x: Samples inside the box, float32, (n, *shape), on the model's device.
        y: True classes, int64, (n,).
        ids: Sample ids that key the noise, int64, (n,).
        threat: What the attacker may do, with eps above 0.
        seed: Seed of the noise.
        samples: Most samples that are looked at: the first that the model gets right.

    Returns:
        All flags, red or not; none where the model gets no sample right.
    """
    if len(x) == 0:
        return ()
    logits = classifier.logits(x)
    right = (logits.argmax(1) == y).nonzero()[:samples, 0]
    if len(right) == 0:
        return ()
    probe = _Probe(classifier, x[right], y[right], ids[right.cpu()], threat, seed, logits[right])
    again = classifier.logits(probe.x)
    flags = [
        Flag("random-output", _share((again != probe.logits).any(1)), 0.0,
             "two passes on one input differ: attack the expectation (eot)"),
        Flag("softmax-output", _softmax(probe.logits), 0.5,
             "the outputs are probabilities: losses saturate; attack the logits"),
        Flag("saturated-logits", _share(_saturated(probe)), 0.5,
             "the true class has probability 1 in float32: cross-entropy has no gradient"),
    ]  # fmt: skip
    return (*flags, *_of_gradients(probe), *_of_searches(probe))


def _of_gradients(probe: _Probe) -> list[Flag]:
    size = probe.gradient().flatten(1).double().abs().amax(1)
    finite = size.isfinite()
    return [
        Flag("zero-gradient", _share(size == 0), 0.1, "the margin has no gradient at the sample"),
        Flag("exploding-gradient", _share(~finite | (size > _EXPLODED)), 0.0,
             "a gradient is Inf, NaN or above 1e10"),
        Flag("quantised-input", _share(_quantised(probe)), 0.5,
             "no logit changes for a change of a thousandth of eps"),
    ]  # fmt: skip


def _of_searches(probe: _Probe) -> list[Flag]:
    eps, clean = probe.threat.eps, margin(probe.logits, probe.y)
    found, lowest = probe.attack(eps, _SHORT)
    half, _ = probe.attack(eps / 2, _SHORT)
    drawn = _drawn(probe)
    still = ~found & (lowest > 0.99 * clean)
    beaten = ~found & (drawn < lowest)
    huge: float | None = None
    if probe.threat.immutable is None:  # what may not change can hold a class for good
        huge = _share(~probe.attack(_everything(probe), _LONG)[0])
    return [
        Flag("loss-stands-still", _share(still), 0.5, "ten steps of PGD do not lower the margin"),
        Flag("noise-beats-gradient", _share(beaten), 0.1,
             "the lowest margin of ten random points is below that of ten steps of PGD"),
        Flag("not-monotone", _share(half & ~found), 0.05,
             "broken at half of eps, and not at eps, by the same search"),
        Flag("holds-at-any-eps", huge, 0.05,
             "not broken though the attacker may choose any input of the box"),
    ]  # fmt: skip


def _share(rows: Tensor) -> float:
    return float(rows.double().mean())


def _softmax(logits: Tensor) -> float:
    inside = ((logits >= 0) & (logits <= 1)).all(1)
    return _share(inside & ((logits.double().sum(1) - 1).abs() < 1e-4))


def _saturated(probe: _Probe) -> Tensor:
    own = probe.logits.softmax(1).gather(1, probe.y[:, None])[:, 0]
    return own == 1.0


def _quantised(probe: _Probe) -> Tensor:
    """Rows whose logits are the same, bit for bit, at a random point very near."""
    tiny = replace(probe.threat, eps=probe.threat.eps / 1000)
    near = Ball.around(tiny, probe.x).outermost(_keys(probe, "quantised"))
    moved = (near != probe.x).flatten(1).any(1)
    return moved & (probe.classifier.logits(near) == probe.logits).all(1)


def _drawn(probe: _Probe) -> Tensor:
    """Lowest margin over random points of the ball."""
    ball, keys = Ball.around(probe.threat, probe.x), _keys(probe, "noise")
    step = 4 * probe.x[0].numel()
    points = (ball.outermost(advance(keys, torch.full_like(keys, i * step))) for i in range(_DRAWS))
    gaps = [margin(probe.classifier.logits(point), probe.y) for point in points]
    return torch.stack(gaps).amin(0)


def _keys(probe: _Probe, name: str) -> Tensor:
    return stream_keys(probe.seed, f"diagnose-{name}", probe.ids.tolist(), 0).to(probe.x.device)


def _everything(probe: _Probe) -> float:
    """A radius that reaches every input of the box from every sample."""
    threat, shape = probe.threat, probe.x.shape[1:]
    span = (threat.upper - threat.lower).double().expand(shape)
    if threat.scale is not None:
        span = span / threat.scale.double()
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[threat.norm]
    return 1.01 * float(torch.linalg.vector_norm(span.flatten(), order))

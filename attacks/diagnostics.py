"""Signs that an attack failed rather than that a model held: gradient masking, by measurement.

Probes on a few samples, cheap beside an evaluation, after the checklists of Carlini et al. 2019
("On evaluating adversarial robustness"), AutoAttack's checks (Croce and Hein 2020) and Pintor et
al., NeurIPS 2022 ("Indicators of attack failure"). Each says of which samples it holds; beyond a
limit robustness that was measured is not to be trusted, and no one has to notice that by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.masking import STILL_AT_FIRST, Probe, of_searches
from attacks.threat import ThreatModel

SAMPLES = 64
_EXPLODED = 1e10

About = Literal["model", "sample"]


@dataclass(frozen=True)
class Sign:
    """What a flag is about.

    Attributes:
        limit: Shares above it are red.
        meaning: What the flag says of a sample.
        about: "model": it spoils every verdict. "sample": it is void where something else settles
            the sample, an example that holds or a proof.
    """

    limit: float
    meaning: str
    about: About = "sample"


SIGNS = {
    "random-output": Sign(
        0.0, "two passes on one input differ: attack the expectation (eot)", "model"
    ),
    "softmax-output": Sign(
        0.5, "the outputs are probabilities: losses saturate; attack the logits", "model"
    ),
    "saturated-logits": Sign(
        0.5, "the other classes have probability 0 in float32: cross-entropy has no gradient"
    ),
    "zero-gradient": Sign(0.1, "the margin has no gradient at the sample"),
    "exploding-gradient": Sign(0.0, "a gradient is Inf, NaN or above 1e10"),
    "quantised-input": Sign(0.5, "no logit changes for a change of a thousandth of eps"),
    "loss-stands-still": Sign(
        0.5, "ten steps of PGD lower the margin by less than a tenth of what its gradient promises"
    ),
    "noise-beats-gradient": Sign(
        0.1, "the lowest margin of ten random points is below that of ten steps of PGD"
    ),
    "not-monotone": Sign(0.05, "broken at half of eps, and not at eps, by the same search"),
    "holds-at-any-eps": Sign(
        0.05, "not broken by gradients within the whole box, which holds inputs of other classes"
    ),
    "black-box-beats-white-box": Sign(
        0.05, "broken by 200 queries of Square, and not by gradients of more work than these"
    ),
    "transfer-beats-white-box": Sign(
        0.05, "broken by an example for another network, and not by the model's own gradients"
    ),
}
"""All flags, in the order they are given."""
_STILL_AT_FIRST = Sign(0.5, "ten steps of PGD do not lower the margin")


@dataclass(frozen=True, eq=False)
class Flag:
    """One sign.

    Attributes:
        name: In a word.
        sign: What it is about, and its limit.
        rows: The samples it holds of, bool, (n,); None where it cannot be said for this threat
            model.
    """

    name: str
    sign: Sign
    rows: Tensor | None

    @property
    def value(self) -> float | None:
        """The share of the samples that were looked at."""
        return None if self.rows is None else int(self.rows.sum()) / len(self.rows)

    @property
    def red(self) -> bool:
        """Whether robustness measured on this model is not to be trusted.

        One sample alone is no red flag, unless its flag may hold of none at all.
        """
        if self.rows is None or self.value is None:
            return False
        return self.value > self.sign.limit and (self.sign.limit == 0 or int(self.rows.sum()) > 1)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found out.

    Attributes:
        ids: The samples that were looked at, ascending, int64, (n,), on the CPU.
        flags: All flags, red or not; none where no sample could be looked at.
        at_first: The same by the first probes, for records that were made by them.
    """

    ids: Tensor
    flags: tuple[Flag, ...]
    at_first: tuple[Flag, ...]


def diagnose(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    seed: int = 0,
    samples: int | None = SAMPLES,
    surrogate: TiledClassifier | None = None,
) -> Diagnosis:
    """Look for signs that attacks by gradient fail on a model.

    Nothing depends on the order of the samples, or on the model's tiles.

    Args:
        classifier: The model, in tiles.
        x: Samples inside the box, float32, (n, *shape), on the model's device.
        y: True classes, int64, (n,).
        ids: Sample ids that key the noise, int64, (n,).
        threat: What the attacker may do, with eps above 0, in a norm that has gradient attacks.
        seed: Seed of the noise.
        samples: Most samples that are looked at: of those that the model gets right, the ones of
            the smallest ids. None: all that are given, which are known to be right.
        surrogate: A model whose examples are tried on this one; None trains one on its answers.
    """
    order = ids.cpu().argsort()
    x, y, ids = x[order.to(x.device)], y[order.to(y.device)], ids.cpu()[order]
    logits = classifier.logits(x) if len(x) else x.new_zeros(0, 2)
    right = torch.arange(len(x), device=x.device)
    if samples is not None:
        right = (logits.argmax(1) == y).nonzero()[:samples, 0]
    if len(right) == 0:
        return Diagnosis(ids[:0], (), ())
    probe = Probe(classifier, x[right], y[right], ids[right.cpu()], threat, seed, logits[right])
    found = {
        "random-output": _random(probe),
        "softmax-output": _softmax(probe.logits),
        "saturated-logits": _saturated(probe),
        **_of_gradients(probe),
        **of_searches(probe, surrogate),
    }
    flags = tuple(Flag(name, sign, _on_cpu(found[name])) for name, sign in SIGNS.items())
    still = Flag("loss-stands-still", _STILL_AT_FIRST, _on_cpu(found[STILL_AT_FIRST]))
    at_first = tuple(still if flag.name == still.name else flag for flag in flags)
    return Diagnosis(probe.ids, flags, at_first)


def _on_cpu(rows: Tensor | None) -> Tensor | None:
    return None if rows is None else rows.cpu()


def _of_gradients(probe: Probe) -> dict[str, Tensor]:
    size = probe.gradient.flatten(1).double().abs().amax(1)
    return {
        "zero-gradient": size == 0,
        "exploding-gradient": ~size.isfinite() | (size > _EXPLODED),
        "quantised-input": _quantised(probe),
    }


def _random(probe: Probe) -> Tensor:
    """Rows whose logits differ between passes: at the samples, and at points off the data."""
    aside = Ball.around(probe.threat, probe.x).outermost(probe.keys("random"))
    first, again = (probe.classifier.logits(torch.cat([probe.x, aside])) for _ in range(2))
    differs: Tensor = (first != again).any(1).view(2, -1).any(0)
    return differs | (first[: len(probe.x)] != probe.logits).any(1)


def _softmax(logits: Tensor) -> Tensor:
    inside = ((logits >= 0) & (logits <= 1)).all(1)
    return inside & ((logits.double().sum(1) - 1).abs() < 1e-4)


def _saturated(probe: Probe) -> Tensor:
    """Rows where `softmax - onehot` is 0: a margin of 17 is not enough, one of 104 is."""
    other = probe.logits.softmax(1).scatter(1, probe.y[:, None], 0.0)
    return (probe.logits.argmax(1) == probe.y) & (other == 0).all(1)


def _quantised(probe: Probe) -> Tensor:
    """Rows whose logits are the same, bit for bit, at a random point very near."""
    tiny = replace(probe.threat, eps=probe.threat.eps / 1000)
    near = Ball.around(tiny, probe.x).outermost(probe.keys("quantised"))
    moved = (near != probe.x).flatten(1).any(1)
    return moved & (probe.classifier.logits(near) == probe.logits).all(1)

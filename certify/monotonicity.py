"""Features in which a score surely rises, or surely falls (Shi et al., NeurIPS 2022, section 5).

A feature is freed to its whole legal range while the others stay, or move as an attacker may. Where
the score's slope in that feature has one sign on this set, the score is monotone along the feature
through every point of it: it is the integral of its slopes, and at kinks bounds hold all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.threat import ThreatModel, WeightBudget
from certify.ball import InputSet
from certify.explaining import ExplanationCertifier, Method
from certify.interval import Interval


@dataclass(frozen=True, eq=False)
class Monotonicity:
    """What is proved of each sample and feature that was asked for.

    Attributes:
        increasing: The score never falls as the feature grows; bool (n, features).
        decreasing: It never rises; both where the score does not depend on the feature.
        slopes: What the slope may be, (n, features); NaN where nothing is known.
    """

    increasing: Tensor
    decreasing: Tensor
    slopes: Interval


def certify_monotone(
    certifier: ExplanationCertifier,
    x: Tensor,
    seed: Tensor,
    features: Tensor,
    threat: ThreatModel,
    budget: WeightBudget | None = None,
    method: Method = "crown-interval",
) -> Monotonicity:
    """Prove in which features a score is monotone.

    It is a statement on real numbers: floats are rounded, and a score that rises may fall by a unit
    in its last place. It speaks of softplus as it is written, without torch's jump of 2e-9 where
    it becomes the identity.

    Args:
        certifier: Of explanation "gradient", whose score is meant.
        x: Samples (n, *shape).
        seed: Weights of their logits (n, classes).
        features: Places in the flattened sample, int64.
        threat: Its box is the range of a freed feature, immutable or not; the others move by its
            ball, which for "l2" and "l1" is taken for the box around it; eps 0 keeps them.
        budget: Weights that are possible instead of the model's.
        method: One of `certify.explaining.METHODS`.

    Raises:
        UnsupportedError: An operation has no rule.
        ValueError: There is no such method.
    """
    around = InputSet.around(x, threat).box
    shape, many = tuple(x.shape[1:]), len(features)
    freed = torch.nn.functional.one_hot(features, math.prod(shape)).bool().view(many, *shape)
    low, high = (end.to(x).expand(shape) for end in (threat.lower, threat.upper))
    sets = Interval(
        torch.where(freed, low, around.lower[:, None]).flatten(0, 1),
        torch.where(freed, high, around.upper[:, None]).flatten(0, 1),
    )
    each = seed.repeat_interleave(many, 0)
    box = certifier.bound(InputSet(sets), each, budget, method, freed.any(0))
    own = freed.flatten(1).expand(len(x), -1, -1)
    lower, upper = (
        end.view(len(x), many, -1)[own].view(-1, many) for end in (box.lower, box.upper)
    )
    return Monotonicity(lower >= 0, upper <= 0, Interval(lower, upper))

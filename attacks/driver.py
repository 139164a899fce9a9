"""The judge of adversarial examples: no attack is trusted, every find is measured afresh.

Written without the attacks' own geometry. The norm is measured in float64 on the float32 input,
the box is compared bit for bit, and the model is called again, in float32 and in float64.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.losses import margin
from attacks.threat import ThreatModel


def distances(x: Tensor, other: Tensor, threat: ThreatModel) -> Tensor:
    """Norm of `other - x` in units of eps (of L0: features that differ), float64, (n,)."""
    if threat.norm == "l0":
        return (other != x).flatten(1).double().sum(1)
    difference = other.double() - x.double()
    if threat.scale is not None:
        difference = difference / threat.scale.double()
    rows = TiledClassifier.pad(difference.flatten(1), max(len(x), 32))  # one row may sum otherwise
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[threat.norm]
    found: Tensor = torch.linalg.vector_norm(rows, ord=order, dim=1)[: len(x)]
    return found


def inside_box(x: Tensor, threat: ThreatModel) -> Tensor:
    """Whether every feature of a sample lies in the box (false for NaN), bool, (n,)."""
    return ((x >= threat.lower) & (x <= threat.upper)).flatten(1).all(1)


def in_float64(module: nn.Module, x: Tensor) -> nn.Module | None:
    """A copy of the model in float64, or None where it has no such form.

    Args:
        module: The model in float32.
        x: Samples, float32, (n, *shape), n >= 1: the first is tried on the copy.
    """
    try:
        precise = copy.deepcopy(module).double().eval()
        with torch.no_grad():
            logits = precise(x[:1].double())
    except Exception:  # a stranger's module can refuse in any way, and also only when called
        return None
    return precise if logits.dtype == torch.float64 else None


@dataclass(eq=False)
class Recheck:
    """What holds of a batch of alleged adversarial examples; all (n,).

    Attributes:
        legal: Inside the box, within eps, immutable features unchanged.
        distance: Norm of the perturbation in units of eps, float64.
        prediction: Class predicted in float32.
        margin: Logit margin of the true class in float32 (as float64).
        margin64: The same in float64; NaN where the model has no float64 form.
        missed: Another class than the true one is predicted in float32.
        missed64: The same in float64; true where the model has no float64 form.
    """

    legal: Tensor
    distance: Tensor
    prediction: Tensor
    margin: Tensor
    margin64: Tensor
    missed: Tensor
    missed64: Tensor

    @property
    def broken(self) -> Tensor:
        """Legal and misclassified in float32, and in float64 where that exists."""
        return self.legal & self.missed & self.missed64


def missed(logits: Tensor, y: Tensor) -> Tensor:
    """Whether another class is predicted, by finite logits; bool, (n,).

    The prediction is the first of the largest logits, for clean and attacked inputs alike.
    """
    return (logits.argmax(1) != y) & logits.isfinite().all(1)


def recheck(
    classifier: TiledClassifier,
    precise: TiledClassifier | None,
    x: Tensor,
    adversarial: Tensor,
    y: Tensor,
    threat: ThreatModel,
) -> Recheck:
    """Measure alleged adversarial examples afresh.

    Args:
        classifier: The model in float32.
        precise: The same model in float64, or None.
        x: Clean samples, float32, (n, *shape), n >= 1.
        adversarial: Alleged adversarial examples, float32, like `x`.
        y: True classes, int64, (n,).
        threat: What the attacker was allowed.
    """
    distance = distances(x, adversarial, threat)
    legal = inside_box(adversarial, threat) & (distance <= threat.eps)
    if threat.immutable is not None:
        legal &= ((adversarial == x) | ~threat.immutable).flatten(1).all(1)
    logits = classifier.logits(adversarial)
    gap = margin(logits, y).double()
    gap64, missed64 = torch.full_like(gap, torch.nan), torch.ones_like(legal)
    if precise is not None:
        logits64 = precise.logits(adversarial.double())
        gap64, missed64 = margin(logits64, y), missed(logits64, y)
    return Recheck(legal, distance, logits.argmax(1), gap, gap64, missed(logits, y), missed64)

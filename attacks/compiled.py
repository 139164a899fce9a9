"""Gradients of an attack by `torch.compile`: of the same model, as code made for one tile.

It is for searching only. A compiled model adds up in another order, so its bits are others, and
hang on the size of the tile: there is one size. Logits that no gradient follows, and with them the
judge, are the plain module's.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.errors import CompileError

_ALIKE = 1e-3
"""How far a compiled gradient may be from the plain one, of the largest entry there is."""


def compiled(classifier: TiledClassifier, x: Tensor) -> TiledClassifier:
    """Return a classifier whose gradients are compiled, in the largest tile alone.

    Args:
        classifier: The plain one.
        x: Some samples, (n, *shape), to try it with.

    Raises:
        CompileError: `torch.compile` does not work here or with this model, or gives other values.
    """
    found = TiledClassifier(
        classifier.module, classifier.tiles[-1:], classifier.invariant, classifier.seconds
    )
    found.fast, found.most = False, classifier.most
    own = copy.deepcopy(classifier.module).requires_grad_(False)  # gradients of inputs alone
    found.search = torch.compile(own, dynamic=False)
    tile = TiledClassifier.pad(x[: found.tiles[0]], found.tiles[0])
    try:
        logits, gradient = found.logits_and_gradient(tile, _loss)
    except Exception as error:  # whatever the compiler or what it calls may raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(error).__name__
        raise CompileError(
            f"torch.compile does not work here with this model ({reason}): leave it out"
        ) from error
    there = TiledClassifier(own, found.tiles)
    there.fast = False
    plain, slope = there.logits_and_gradient(tile, _loss)
    for one, other in ((logits, plain), (gradient, slope)):
        gap = float((one - other).abs().max())
        if not gap <= _ALIKE * (float(other.abs().max()) + 1e-12):
            raise CompileError(
                f"torch.compile gives other values for this model, off by {gap:.3g}: leave it out"
            )
    found.work = classifier.work
    return found


def _loss(logits: Tensor) -> Tensor:
    return logits.logsumexp(1) - logits[:, 0]

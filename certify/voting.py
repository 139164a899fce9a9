"""Votes of a classifier on noisy copies of a sample, the same whatever they are batched with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attacks.classifier import TiledClassifier
from attacks.randomness import advance, normal, stream_keys
from certify.smoothing import Counts

Purpose = Literal["selection", "estimation"]
"""What draws are for: the two never share a stream, or the bounds would be biased upwards."""

_NUMBERS = 1 << 16
"""Drawn at once: what stays in a processor's cache."""
_COPIES_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Votes:
    """How often f predicted each class under noise.

    Attributes:
        counts: int64, (m, classes). A draw votes for the class with the strictly largest logit;
            one that has none (a tie, or a NaN or Inf) votes for no class. So f is a fixed
            function on every input, and what is in doubt never counts for a class.
        not_finite: Draws with a NaN or Inf among their logits, int64, (m,).
    """

    counts: Counts
    not_finite: Counts


def noisy_copies(x: Tensor, keys: Tensor, draws: Tensor, sigma: float) -> Tensor:
    """Samples plus Gaussian noise, rounded once.

    The result is not clipped to the box of the data: the theorem is about Gaussian noise, which
    leaves any box, and to clip it would be to smooth another function than f.

    Args:
        x: Samples, float32, (m, *shape).
        keys: Keys of their streams, int64, (m,).
        draws: Number of the draw within each stream, from 0, int64, (m,).
        sigma: Standard deviation.

    Returns:
        float32, like `x`.
    """
    clean = x.flatten(1)
    features = clean.shape[1]
    starts = advance(keys, draws * features)
    copies = torch.empty_like(clean)
    rows = max(1, _NUMBERS // features)
    for begin in range(0, len(x), rows):
        part = slice(begin, begin + rows)
        for first in range(0, features, _NUMBERS):
            place = (part, slice(first, min(first + _NUMBERS, features)))
            noise = normal(starts[part], place[1].stop - first, first)
            copies[place] = (clean[place].double() + sigma * noise).float()
    return copies.view_as(x)


def vote(
    classifier: TiledClassifier,
    x: Tensor,
    ids: Tensor,
    sigma: float,
    draws: int,
    seed: int,
    purpose: Purpose,
    progress: Callable[[int], None] | None = None,
) -> Votes:
    """Let f vote on `draws` noisy copies of each sample.

    The noise of draw i of a sample hangs on (seed, purpose, sample id, i) alone.

    Args:
        classifier: The base classifier f.
        x: Samples, float32, (m, *shape), m >= 1, on the model's device.
        ids: Sample ids, int64, (m,).
        sigma: Standard deviation of the noise, in units of the input.
        draws: Noisy copies of each sample.
        seed: Of the run.
        purpose: Of the draws.
        progress: Called with the number of samples that are done.
    """
    keys = stream_keys(seed, f"smoothing {purpose}", ids.tolist(), 0).to(x.device)
    size = _copies_at_once(classifier, x)
    counts: Tensor | None = None
    not_finite = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for begin in range(0, len(x) * draws, size):
        pair = torch.arange(begin, min(begin + size, len(x) * draws), device=x.device)
        sample = pair // draws
        copies = noisy_copies(x[sample], keys[sample], pair % draws, sigma)
        logits = classifier.logits(copies)
        if counts is None:
            counts = torch.zeros(len(x), logits.shape[1], dtype=torch.int64, device=x.device)
        winner, finite = _winners(logits)
        clear = winner >= 0
        ones = torch.ones_like(pair)
        counts.index_put_((sample[clear], winner[clear]), ones[clear], accumulate=True)
        not_finite.index_put_((sample,), (~finite).long(), accumulate=True)
        if progress is not None:
            progress(int(pair[-1] + 1) // draws)
    assert counts is not None
    return Votes(_numpy(counts), _numpy(not_finite))


def _winners(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The class with the strictly largest of finite logits, else -1; and which are finite."""
    best, index = logits.topk(2, dim=1)
    finite = logits.isfinite().all(1)
    return torch.where(finite & (best[:, 0] > best[:, 1]), index[:, 0], -1), finite


def _copies_at_once(classifier: TiledClassifier, x: Tensor) -> int:
    """Whole tiles, as many as fit into the memory set aside, at least one and at most eight."""
    tile = classifier.tiles[-1]
    return tile * max(1, min(8, _COPIES_BYTES // (tile * max(1, x[0].nbytes))))


def _numpy(counts: Tensor) -> Counts:
    return counts.cpu().numpy().astype(np.int64)

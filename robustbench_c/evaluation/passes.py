"""The conditions under which a run's passes give the same bits again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from attacks.classifier import exact_passes
from leaderboards.manifest import Manifest


@contextmanager
def passes_of(manifest: Manifest) -> Iterator[None]:
    """Deterministic kernels, and as many threads as the run began with: others round differently.

    The caller's settings come back.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(manifest.threads)
    try:
        with exact_passes():
            yield
    finally:
        torch.set_num_threads(threads)

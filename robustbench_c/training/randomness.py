"""Random streams of training, each derived from (seed, purpose, epoch).

No state of a generator has to be stored: a resume from epoch k derives the streams of epoch k + 1
as the uninterrupted run did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed that no other (seed, purpose, epoch) shares."""
    digest = hashlib.blake2b(f"{seed}|{purpose}|{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(
    seed: int, purpose: str, epoch: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator of its own for one purpose in one epoch."""
    return torch.Generator(device).manual_seed(derive(seed, purpose, epoch))


@contextmanager
def seeded_modules(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators within the block and put them back after it.

    Weight initialisation and dropout take no generator and draw from the global ones; this makes
    them repeatable and leaves the caller's random state untouched.
    """
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield

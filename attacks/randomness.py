"""Random numbers that belong to a sample, not to its place in a batch.

A stream is keyed by (seed, method, sample id, restart), so an attack's noise does not depend on
batch size, order, shard or resume. The generator is counter based: number `j` of a stream is a
hash of (key, j), SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number
generators, OOPSLA 2014, figure 16). Everything here is integer arithmetic or exact in floating
point, because a vectorised `log` or `cos` can round differently at different places of a tensor;
the one exception is `ndtri`, which torch evaluates number by number (a test holds it to that).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's `>>` is arithmetic)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def stream_keys(seed: int, method: str, ids: Iterable[int], restart: int) -> Tensor:
    """One 64-bit key for each sample.

    Args:
        seed: The run's seed.
        method: Name of what draws the numbers (two methods never share a stream).
        ids: Sample ids.
        restart: Number of the restart, from 0.

    Returns:
        int64, (n,), on the CPU.
    """
    prefix = hashlib.blake2b(f"{seed}|{method}|{restart}|".encode(), digest_size=32)
    keys = []
    for sample in ids:
        digest = prefix.copy()
        digest.update(str(int(sample)).encode())
        keys.append(int.from_bytes(digest.digest()[:8], "little", signed=True))
    return torch.tensor(keys, dtype=torch.int64)


def _bits(keys: Tensor, count: int, offset: int) -> Tensor:
    counter = torch.arange(offset + 1, offset + count + 1, device=keys.device) * _GAMMA
    z = keys[:, None] + counter
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


def uniform(keys: Tensor, count: int, offset: int = 0) -> Tensor:
    """Uniform numbers on the grid of multiples of 2^-24 in [0, 1).

    Args:
        keys: int64, (n,), from `stream_keys`.
        count: Numbers for each key.
        offset: Index of the first number in the stream.

    Returns:
        float32, (n, count).
    """
    return _shift(_bits(keys, count, offset), 40).float() * 2.0**-24


def advance(keys: Tensor, numbers: Tensor) -> Tensor:
    """Keys of the same streams, `numbers` further on.

    Args:
        keys: int64, (n,).
        numbers: Numbers of the stream to pass over, int64, (n,), on the same device.
    """
    return keys + numbers * _GAMMA


def normal(keys: Tensor, count: int, offset: int = 0) -> Tensor:
    """Standard normal numbers by the inverse of the distribution function, for statistics.

    Takes one number of the stream for each result: 52 bits, at the middle of their interval, so
    that 0 and 1 are never met. Unlike those of `gaussian` the tails are right, down to the ends
    at 8.2 standard deviations (of 10^15 numbers one is further out).

    Returns:
        float64, (n, count).
    """
    middle = (_shift(_bits(keys, count, offset), 12).double() + 0.5) * 2.0**-52
    found: Tensor = torch.special.ndtri(middle)
    return found


def gaussian(keys: Tensor, count: int, offset: int = 0) -> Tensor:
    """Approximately standard normal numbers: the sum of 12 uniforms less 6 (Irwin-Hall).

    Takes 3 numbers of the stream for each result (four 16-bit uniforms in each); exact, so the
    same on every device. The tails end at 6 standard deviations.

    Returns:
        float32, (n, count).
    """
    words = _bits(keys, 3 * count, offset)
    parts = sum((_shift(words, shift) if shift else words) & 0xFFFF for shift in (0, 16, 32, 48))
    assert isinstance(parts, Tensor)
    total = parts.view(len(keys), count, 3).sum(-1)
    return (total - 6 * 0xFFFF).float() * 2.0**-16

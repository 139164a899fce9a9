"""Samples on the device, and the part of them held out for validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_c.errors import DataError
from robustbench_c.training.interfaces import TrainingData
from robustbench_c.training.randomness import generator
from robustbench_c.zoo.devices import moved


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs (n, *shape) float32 and labels (n,) int64 on one device."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def at(self, index: Tensor) -> Samples:
        """The samples at these places."""
        return Samples(self.x[index], self.y[index])


def place(data: TrainingData, device: torch.device | str) -> Samples:
    """Put a whole data set on the device."""
    return Samples(
        moved(torch.as_tensor(data.x, dtype=torch.float32), device),
        moved(torch.as_tensor(data.y, dtype=torch.int64), device),
    )


def describe(data: TrainingData) -> dict[str, str]:
    """Name and hashes of a data set; a subset has its set's hash, but samples of its own."""
    samples = place(data, "cpu")
    digest = hashlib.sha256(samples.x.numpy().tobytes() + samples.y.numpy().tobytes())
    return {"name": data.name, "sha256": data.sha256, "samples_sha256": digest.hexdigest()}


def hold_out(samples: Samples, part: float, seed: int) -> tuple[Samples, Samples]:
    """Split off random samples, `part` of them (below 1: that share), the same for the same seed.

    Returns:
        The rest, and those held out; both in random order.

    Raises:
        DataError: Nothing would be left to train on.
    """
    n = len(samples)
    count = int(part) if part >= 1 else round(part * n)
    if count >= n:
        raise DataError(
            f"{count} of {n} training samples are to be held out: lower `validation` below {n}"
        )
    order = torch.randperm(n, generator=generator(seed, "hold-out")).to(samples.x.device)
    return samples.at(order[count:]), samples.at(order[:count])

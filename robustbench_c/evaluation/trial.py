"""What a run takes, by trying it: for runs whose samples take about the same time each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from attacks import memory
from robustbench_c.data import Dataset
from robustbench_c.evaluation.estimate import Estimate

_SAMPLES = (1, 4)


def estimate_by_trial(
    run: Callable[[Dataset, Path], object], data: Dataset, device: str
) -> Estimate:
    """Estimate a run from what it takes on one sample and on four, as `a + b n` seconds.

    Args:
        run: The run on some of the samples, with a folder for its record.
        data: All samples.
        device: Where it runs.

    Returns:
        `likely` and `most` are the same; peak memory is that of four samples.
    """
    where = torch.device(device)
    memory.reset_peak(where)
    points: list[tuple[int, float]] = []
    for number in _SAMPLES:
        part = data.head(min(number, len(data)))
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            run(part, Path(folder))
            points.append((len(part), time.perf_counter() - started))
    (few, first), (many, second) = points
    each = max(0.0, (second - first) / (many - few)) if many > few else 0.0
    seconds = second + each * (len(data) - many)
    return Estimate(seconds, seconds, memory.peak(where))

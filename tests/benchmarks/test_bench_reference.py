"""The unit of time of `robust-leaderboard speed`.

Run it in the same pytest call as the benchmarks whose speed is gated.
"""

from __future__ import annotations

from typing import Any

import torch
from conftest import reference_workload  # type: ignore[import-not-found]


def test_reference_workload(benchmark: Any) -> None:
    result = benchmark.pedantic(reference_workload, rounds=50, iterations=1, warmup_rounds=5)
    assert torch.isfinite(result).all()

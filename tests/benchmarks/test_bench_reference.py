"""The unit of time of `robust-leaderboard speed`: what networks do, and no code of ours.

Run it in the same pytest call as the benchmarks whose speed is gated.
"""

from __future__ import annotations

from typing import Any

import torch


def test_reference_workload(benchmark: Any) -> None:
    """Matrix products and element-wise passes, on fixed numbers; a few milliseconds a round."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(384, 384, generator=generator) for _ in range(2))

    def work() -> torch.Tensor:
        y = x
        for _ in range(6):
            y = torch.relu(y @ w / 20).add_(x)
        return y

    assert torch.isfinite(benchmark.pedantic(work, rounds=50, iterations=1, warmup_rounds=5)).all()

"""The paths that a run spends its time on, in rounds enough for `robust-leaderboard speed`.

python -m pytest tests/benchmarks/test_bench_reference.py tests/benchmarks/test_bench_speed.py \\
    --benchmark-json head.json
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import beside_reference, load_subject  # type: ignore[import-not-found]

from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.specification import margins
from certify.trace import trace_model

THREAT = ThreatModel.box("linf", 0.1)


@pytest.mark.bench
def test_speed_of_pgd(benchmark: Any) -> None:
    """Ten steps on 200 images, none of which gets lost on the way."""
    subject = load_subject("fmnist-cnn-mtl-ibp", 200)
    config = PGDConfig(steps=10, restarts=1, step_size=1e-6)
    parts = subject.classifier, subject.x, subject.y, subject.ids
    threat = ThreatModel.box("linf", 1e-4)
    result = beside_reference(benchmark, lambda: pgd(*parts, threat, config, seed=0))
    assert len(result.found) == 200


@pytest.mark.bench
@pytest.mark.parametrize(("method", "samples"), [("ibp", 200), ("crown-ibp", 200), ("crown", 8)])
def test_speed_of_bounds(benchmark: Any, method: str, samples: int) -> None:
    """Bounds of all margins."""
    subject = load_subject("fmnist-cnn-mtl-ibp", samples)
    module, inputs = subject.classifier.module, InputSet.around(subject.x, THREAT)
    program, wanted = bind_model(module, trace_model(module, subject.x[:2])), margins(subject.y, 10)

    def bounds() -> torch.Tensor:
        known = analyse(program, inputs, tighten=method == "crown", lines=method != "ibp")
        return output_bounds(known, wanted)

    with torch.no_grad():
        assert beside_reference(benchmark, bounds).shape == (samples, 9)

"""How far an attack bends explanations, beside chance and the certificate.

make bench        or: python -m pytest tests/benchmarks/test_bench_explanation_attacks.py -s

Prints the table of docs/explanations.md: means over the first 32 test samples.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.explanation_attacks import ExplanationAttackConfig, attack_explanations
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, explain, seeds
from attacks.threat import ThreatModel
from certify.explaining import ExplanationCertifier
from certify.explanation_metrics import worst_distance
from robustbench_c import data, zoo

SAMPLES, DRAWS = 32, 150
MEASURES = {
    "l2, relative": Criterion("l2", relative=True),
    "linf": Criterion("linf"),
    "cosine": Criterion("cosine"),
    "top-k, k = 20": Criterion("top-k", k=20),
}


def by_chance(
    model: nn.Module, x: Tensor, target: Tensor, threat: ThreatModel, criterion: Criterion
) -> Tensor:
    """The farthest explanation of random points where the prediction is kept."""
    clean = explain(model, x, target).detach()
    low, high = threat.bounds(x)
    random = torch.Generator().manual_seed(0)
    farthest = torch.zeros(len(x), dtype=torch.float64)
    for draw in range(DRAWS):
        u = torch.rand(x.shape, generator=random)
        point = (low + (u.round() if draw % 2 else u) * (high - low)).clamp(low, high)
        with torch.no_grad():
            kept = model(point).argmax(1) == target
        away = criterion.distance(clean, explain(model, point, target).detach())
        farthest = torch.where(kept, torch.maximum(farthest, away), farthest)
    return farthest


@pytest.mark.bench
@pytest.mark.parametrize("eps", [1 / 255, 0.025], ids=["1/255", "0.025"])
def test_attack_beats_chance_and_stays_below_the_certificate(benchmark: Any, eps: float) -> None:
    model = zoo.load("fmnist-cnn-standard").module
    x = data.load("fashion-mnist-mini").head(SAMPLES).x
    with torch.no_grad():
        target = model(x).argmax(1)
    threat, what = ThreatModel.box("linf", eps), Explanation()
    box = ExplanationCertifier(model, x, what).box(x, seeds(what, target, 10), threat)
    clean, ids = explain(model, x, target).detach(), torch.arange(SAMPLES)
    found: dict[str, Tensor] = {}

    def attack() -> None:
        for name, criterion in MEASURES.items():
            config = ExplanationAttackConfig()
            found[name] = attack_explanations(
                model, x, target, ids, threat, what, criterion, config, seed=0
            ).distance

    benchmark.pedantic(attack, rounds=1)
    for name, criterion in MEASURES.items():
        chance = by_chance(model, x, target, threat, criterion)
        bound = worst_distance(criterion, clean, box)
        row = [float(value.mean()) for value in (found[name], chance, bound)]
        benchmark.extra_info[name] = row
        print(
            f"{name}, eps {eps:.4g}: attack {row[0]:.3g}, chance {row[1]:.3g}, bound {row[2]:.3g}"
        )
        assert bool((found[name] <= bound).all())
        assert row[0] > 1.15 * row[1]

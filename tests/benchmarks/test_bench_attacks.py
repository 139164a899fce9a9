"""Every attack of the registry on a fixed small workload, beside bare gradients in the same run.

make bench        or: python -m pytest tests/benchmarks/test_bench_attacks.py -s

The reference is one input gradient of each sample by nothing but torch, so that what an attack
takes is known in gradients, on a busy machine as on an idle one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Subject, Timings, load_subject  # type: ignore[import-not-found]

from attacks.driver import recheck
from attacks.registry import KINDS, AttackConfig, kind_of
from attacks.threat import ThreatModel

sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))
from test_registry import SMALL  # type: ignore[import-not-found]

EPS = {"linf": 0.02, "l2": 0.3, "l1": 3.0, "l0": 10.0}
MODEL, SAMPLES = "fmnist-cnn-standard", 64


def bare_gradients(subject: Subject) -> None:
    """One for each sample."""
    x = subject.x.detach().requires_grad_()
    torch.autograd.grad(F.cross_entropy(subject.classifier.module(x), subject.y), x)


@pytest.mark.parametrize("config", SMALL, ids=lambda config: kind_of(config).name)
def test_attack(benchmark: Any, timings: Timings, config: AttackConfig) -> None:
    """What it takes, and that it still finds what it found: no attack may rot unseen."""
    subject, kind = load_subject(MODEL, SAMPLES), kind_of(config)
    norm = kind.norms[0]
    threat = ThreatModel.box(norm, EPS[norm])
    right = subject.classifier.logits(subject.x).argmax(1) == subject.y
    given = (subject.x[right], subject.y[right], subject.ids[right])
    results = []

    def attack() -> None:
        results.append(kind.run(subject.classifier, *given, threat, config, 0))

    rivals = {"attack": attack, "gradients": lambda: bare_gradients(subject)}
    benchmark.pedantic(timings.run, args=(rivals, 2), iterations=1, rounds=1)
    result = results[0]
    judged = recheck(subject.classifier, None, given[0], result.adversarial, given[1], threat)
    assert torch.equal(judged.broken, result.found)
    passes = int(result.forwards.sum())
    unit = timings.best["gradients"] / SAMPLES
    cost = timings.best["attack"] / passes / unit
    benchmark.extra_info |= {
        "attack": kind.name,
        "norm": norm,
        "robust": int((~result.found).sum()),
        "forward passes": passes,
        "gradients": int(result.backwards.sum()),
        "bare gradients per pass": cost,
    }
    print(f"\n{benchmark.extra_info}")
    assert {kind_of(each).name for each in SMALL} == set(KINDS)
    if kind.knowledge == "white-box":
        assert bool(result.found.any())

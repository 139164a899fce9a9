"""Every attack on a fixed small workload: none may grow weaker or slower unseen.

make bench        or: python -m pytest tests/benchmarks/test_bench_attacks.py -s

How many samples each has to break stands in `attack_floors`; the short form runs with the other
tests. For time the reference is one input gradient of each sample by nothing but torch, so that
what an attack takes is known in gradients, on a busy machine as on an idle one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attack_floors import (  # type: ignore[import-not-found]
    CASES,
    CONFIGS,
    broken,
    floor,
    full_subject,
    full_threat,
    norms_of,
    short_case,
)
from conftest import Timings  # type: ignore[import-not-found]

import attacks.square
from attacks.balls import Ball
from attacks.driver import recheck
from attacks.pgd import PGDConfig
from attacks.registry import KINDS, AttackConfig, kind_of
from attacks.square import SquareConfig
from attacks.threat import AnyNorm


def words(value: Any) -> str:
    """Of a norm itself, of settings their attack."""
    return value if isinstance(value, str) else kind_of(value).name


def test_there_is_a_floor_for_each():
    """Above 0, of each attack in each of its norms, and of each in the short form."""
    for form, cases in CASES.items():
        assert {kind_of(config).name for config, _ in cases} == set(KINDS)
        assert all(floor(form, config, norm) > 0 for config, norm in cases)
    assert len(CASES["full"]) == sum(len(norms_of(config)) for config in CONFIGS)


@pytest.mark.parametrize(("config", "norm"), CASES["short"], ids=words)
def test_it_breaks_what_it_did(config: AttackConfig, norm: AnyNorm) -> None:
    """The short form."""
    case = short_case(config, norm)
    result = case.run()
    assert int(result.found.sum()) >= floor("short", config, norm)


@pytest.mark.parametrize("kind", [PGDConfig, SquareConfig], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_that_grew_weaker_is_seen(monkeypatch, kind, norm):
    """Steps a tenth as long; windows that land at one place."""
    step = Ball.step
    monkeypatch.setattr(Ball, "step", lambda ball, x, g, size: step(ball, x, g, 0.1 * size))
    monkeypatch.setattr(attacks.square, "advance", lambda keys, count: keys)
    config = next(config for config in CONFIGS if isinstance(config, kind))
    assert broken("short", config, norm) < floor("short", config, norm)


def bare_gradients() -> None:
    """One for each sample."""
    classifier, x, y, _ = full_subject()
    x = x.detach().requires_grad_()
    torch.autograd.grad(F.cross_entropy(classifier.module(x), y), x)


@pytest.mark.bench
@pytest.mark.parametrize(("config", "norm"), CASES["full"], ids=words)
def test_attack(benchmark: Any, timings: Timings, config: AttackConfig, norm: AnyNorm) -> None:
    """What it takes, that the judge agrees, and that it breaks as much as it did."""
    kind, threat = kind_of(config), full_threat(config, norm)
    classifier, x, y, _ = full_subject()
    results = []

    def attack() -> None:
        results.append(kind.run(*full_subject(), threat, config, 0))

    rivals = {"attack": attack, "gradients": bare_gradients}
    benchmark.pedantic(timings.run, args=(rivals, 2), iterations=1, rounds=1)
    result = results[0]
    judged = recheck(classifier, None, x, result.adversarial, y, threat)
    assert torch.equal(judged.broken, result.found)
    passes = int(result.forwards.sum())
    unit = timings.best["gradients"] / len(x)
    cost = timings.best["attack"] / passes / unit
    benchmark.extra_info |= {
        "attack": kind.name,
        "norm": norm,
        "broken": int(result.found.sum()),
        "forward passes": passes,
        "gradients": int(result.backwards.sum()),
        "bare gradients per pass": cost,
    }
    print(f"\n{benchmark.extra_info}")
    assert int(result.found.sum()) >= floor("full", config, norm)

"""Bounding sparse networks against dense ones of the same architecture, in one run.

make bench        or: python -m pytest tests/benchmarks/test_bench_sparse.py -s

"dense" is the architecture with all its weights, "sparse" the network with 1% of them, as it is
bounded, and "sparse, ordinary" the same network bounded as a dense one would be.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from conftest import Timings  # type: ignore[import-not-found]
from torch import Tensor, nn

from attacks.threat import ThreatModel
from certify import methods
from certify.methods import Certifier, Method
from certify.result import Outcome
from robustbench_c import data, zoo

CASCADE: tuple[Method, ...] = ("ibp", "crown-ibp", "crown")
SHIPPED = "fmnist-cnn-sparsevlr-99"
DENSE = "fmnist-cnn-crown-ibp"
ALL = " > ".join(CASCADE)


def mlp(width: int, density: float) -> nn.Module:
    """Three hidden layers with a share of their weights at random, of Kaiming's size."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for of, into in itertools.pairwise((784, width, width, width, 10)):
        layer = nn.Linear(of, into)
        with torch.no_grad():
            kept = torch.rand_like(layer.weight) < density
            layer.weight.copy_(torch.randn_like(layer.weight) * (2 / (density * of)) ** 0.5 * kept)
            layer.bias.normal_(std=0.1)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def pruned(model: nn.Module, weights: Sequence[int]) -> nn.Module:
    """A network of which only so many weights of each layer are left: the largest."""
    model = copy.deepcopy(model)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer, count in zip(layers, weights, strict=True):
        least = layer.weight.detach().abs().flatten().topk(count).values[-1]
        with torch.no_grad():
            layer.weight.mul_(layer.weight.abs() >= least)
    return model


@contextmanager
def ordinary() -> Iterator[None]:
    """Sparse networks are bounded as dense ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "condense", lambda program: program)
        yield


class Subject:
    """A network, ready to be bounded; and its samples."""

    def __init__(self, model: nn.Module, x: Tensor, eps: float) -> None:
        started = time.perf_counter()
        self.prover = Certifier(model, x)
        self.preparation = time.perf_counter() - started
        self.x, self.y = x, model(x).argmax(1)
        self.threat = ThreatModel.box("linf", eps)
        self.found: dict[str, list[Outcome]] = {}

    def certify(self, steps: Sequence[Method]) -> None:
        """Each step on what those before left open; keeps the outcomes."""
        found = [Outcome.UNKNOWN] * len(self.x)
        for step in steps:
            left = [i for i, outcome in enumerate(found) if outcome != Outcome.CERTIFIED]
            if left:
                ids = torch.tensor(left)
                some = self.prover.certify(step, self.x[ids], self.y[ids], ids, self.threat)
                for i, outcome in zip(left, some.outcome, strict=True):
                    found[i] = outcome
        self.found[" > ".join(steps)] = found


Facts = dict[str, dict[str, float]]


def compare(
    benchmark: Any, timings: Timings, sparse: nn.Module, dense: nn.Module, samples: int, eps: float
) -> Facts:
    """Seconds of each method and of the cascade, by subject; how much faster sparse is than both.

    Preparation is tracing, condensing and a first bound, once for a model; what a plan takes to
    make is in the time of the first method that uses it. Certified sets differ only in samples that
    rounding alone leaves open.
    """
    x = data.load("fashion-mnist-mini").head(samples).x
    with torch.no_grad():
        Certifier(dense, x)  # what is imported when a model is traced first
        subjects = {"sparse": Subject(sparse, x, eps), "dense": Subject(dense, x, eps)}
        with ordinary():
            subjects["sparse, ordinary"] = Subject(sparse, x, eps)

    def measure() -> None:
        for steps in (*((method,) for method in CASCADE), CASCADE):
            for who, subject in subjects.items():
                rounds = 5 if steps == ("ibp",) else 1
                label = f"{' > '.join(steps)}|{who}"
                timings.run({label: partial(subject.certify, steps)}, rounds)

    benchmark.pedantic(measure, iterations=1, rounds=1)
    for who, subject in subjects.items():
        timings.best[f"preparation|{who}"] = subject.preparation
    facts: Facts = {}
    for label, seconds in timings.best.items():
        name, who = label.split("|")
        facts.setdefault(name, {})[who] = seconds
    print(f"\n{samples} samples, eps {eps}")
    for name, found in facts.items():
        found["faster than dense"] = found["dense"] / found["sparse"]
        found["faster than ordinary"] = found["sparse, ordinary"] / found["sparse"]
        if name in subjects["sparse"].found:
            found |= certified(
                *(subjects[who].found[name] for who in ("sparse", "sparse, ordinary"))
            )
        print(f"  {name:24}" + ", ".join(f"{who}: {value:.3g}" for who, value in found.items()))
    benchmark.extra_info |= facts
    return facts


def certified(ours: list[Outcome], other: list[Outcome]) -> dict[str, float]:
    """How many are, and how many by one of the two alone: rounding leaves those open."""
    pairs = [p for p in zip(ours, other, strict=True) if Outcome.CERTIFIED in p and p[0] != p[1]]
    assert all(Outcome.ROUNDING in pair for pair in pairs)
    return {"certified": ours.count(Outcome.CERTIFIED), "differ": len(pairs)}


@pytest.mark.bench
def test_sparse_mlp(benchmark: Any, timings: Timings) -> None:
    facts = compare(benchmark, timings, mlp(2048, 0.01), mlp(2048, 1.0), 8, 0.01)
    for name in ("crown", ALL):
        assert facts[name]["faster than dense"] >= 4
    assert facts["ibp"]["faster than dense"] > 1.5  # 2.1 to 4, by the machine: less than the target


@pytest.mark.bench
def test_sparse_cnn(benchmark: Any, timings: Timings) -> None:
    dense = zoo.load(DENSE).module
    facts = compare(benchmark, timings, pruned(dense, (40, 150, 1300, 100)), dense, 100, 0.1)
    assert facts["crown"]["faster than dense"] >= 4


@pytest.mark.bench
def test_shipped_sparse_cnn(benchmark: Any, timings: Timings) -> None:
    if SHIPPED not in zoo.names():
        pytest.skip(f"{SHIPPED} is not among the shipped models")
    sparse, dense = (zoo.load(name).module for name in (SHIPPED, DENSE))
    facts = compare(benchmark, timings, sparse, dense, 100, 0.1)
    assert facts["crown"]["faster than dense"] >= 4


def test_sparse_mlp_in_short(benchmark: Any, timings: Timings) -> None:
    facts = compare(benchmark, timings, mlp(512, 0.01), mlp(512, 1.0), 4, 0.01)
    assert facts["crown"]["faster than dense"] > 1

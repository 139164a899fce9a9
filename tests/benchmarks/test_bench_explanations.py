"""What boxes of explanations cost and how wide they are, on the small CNN as usually trained.

make bench        or: python -m pytest tests/benchmarks/test_bench_explanations.py -s

Costs are medians of calls that ran in turns, in units of a plain batched gradient or of CROWN for
one logit; tracing is left out, the overhead of a call is not.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import high_water  # type: ignore[import-not-found]
from torch import Tensor

from attacks.explanations import Explanation, seeds
from attacks.threat import ThreatModel, WeightBudget
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.explaining import METHODS, ExplanationCertifier
from certify.interval import Interval
from certify.specification import Specification
from certify.trace import trace_model
from robustbench_c import data, zoo

THREAT = ThreatModel.box("linf", 1 / 255)


def medians(rivals: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each, over rounds in which each has its turn; a first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for round_ in range(rounds + 1):
        for name, call in rivals.items():
            started = time.perf_counter()
            call()
            if round_:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


class Subject:
    """The model, samples, and the class that it predicts for each."""

    def __init__(self, samples: int) -> None:
        self.model = zoo.load("fmnist-cnn-standard").module
        self.x = data.load("fashion-mnist-mini").head(samples).x
        with torch.no_grad():
            self.target = self.model(self.x).argmax(1)
        self.seed = seeds(Explanation(), self.target, 10)
        self.certifier = ExplanationCertifier(self.model, self.x, Explanation(), 10)
        self.program = bind_model(self.model, trace_model(self.model, self.x[:2]))

    def box(self, method: Any, budget: WeightBudget | None = None, **more: Any) -> Interval:
        threat = None if more.pop("fixed", False) else THREAT
        return self.certifier.box(self.x, self.seed, threat, budget, method, **more)

    def gradient(self) -> Tensor:
        """Of the logit, as autograd gives it."""
        x = self.x.clone().requires_grad_()
        (found,) = torch.autograd.grad((self.model(x) * self.seed).sum(), x)
        return found

    def crown(self) -> Tensor:
        """A lower bound of the one logit of each sample."""
        known = analyse(self.program, InputSet.around(self.x, THREAT), tighten=True)
        none = torch.zeros(len(self.x), 1)
        return output_bounds(known, Specification(self.seed[:, None], none, (0,)))


@pytest.mark.bench
def test_cost_of_intervals(benchmark: Any) -> None:
    """At most 4 gradients for changes of inputs, at most 8 for those of parameters or both."""
    subject = Subject(100)
    share, fixed = WeightBudget(0.01), WeightBudget(0.001, relative=False)
    rivals: dict[str, Callable[[], object]] = {
        "gradient": subject.gradient,
        "inputs": lambda: subject.box("interval"),
        "parameters": lambda: subject.box("interval", share, fixed=True),
        "both": lambda: subject.box("interval", share),
        "both, absolute": lambda: subject.box("interval", fixed),
    }
    taken: dict[str, float] = {}

    def measure() -> None:
        taken.update(medians(rivals, 15))

    benchmark.pedantic(measure, iterations=1, rounds=1)
    ratio = {name: seconds / taken["gradient"] for name, seconds in taken.items()}
    benchmark.extra_info |= {"seconds": taken, "ratio to a gradient": ratio}
    print(f"\n{benchmark.extra_info}")
    assert ratio["inputs"] <= 4
    assert max(ratio["parameters"], ratio["both"], ratio["both, absolute"]) <= 8


@pytest.mark.bench
@pytest.mark.parametrize("asked", [16, 784])
def test_cost_of_linear(benchmark: Any, asked: int) -> None:
    """At most CROWN for one logit, times the features asked for."""
    subject, features = Subject(4), torch.zeros(784, dtype=torch.bool)
    features[torch.randperm(784, generator=torch.Generator().manual_seed(0))[:asked]] = True
    rivals: dict[str, Callable[[], object]] = {
        "crown": subject.crown,
        "linear": lambda: subject.box("linear", features=features.view(1, 28, 28)),
    }
    taken: dict[str, float] = {}

    def measure() -> None:
        with torch.no_grad():
            taken.update(medians(rivals, 3))

    benchmark.pedantic(measure, iterations=1, rounds=1)
    ratio = taken["linear"] / (taken["crown"] * asked)
    benchmark.extra_info |= {"seconds": taken, "ratio to CROWN by feature": ratio}
    print(f"\n{benchmark.extra_info}")
    assert ratio <= 1


def _peak(method: str, samples: int, channel: Any) -> None:
    """Megabytes that one call adds to a process's peak."""
    subject = Subject(samples)
    subject.box("interval")
    before = high_water()
    subject.box(method)
    channel.put(high_water() - before)


@pytest.mark.bench
def test_memory_of_linear(benchmark: Any) -> None:
    """Bounded by the chunks, whatever the number of samples."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peaks are read from /proc")
    context = multiprocessing.get_context("spawn")
    peak: dict[str, float] = {}

    def measure() -> None:
        for method, samples in (("linear", 4), ("linear", 16)):
            channel = context.Queue()
            job = context.Process(target=_peak, args=(method, samples, channel))
            job.start()
            peak[f"{method}, {samples} samples"] = channel.get(timeout=600)
            job.join()

    benchmark.pedantic(measure, iterations=1, rounds=1)
    benchmark.extra_info |= {"peak, MB": peak}
    print(f"\n{benchmark.extra_info}")
    assert max(peak.values()) <= 1024


def widths(samples: int) -> dict[str, float]:
    """Mean widths of the boxes; whatever is asked for, no method's box is off another's."""
    subject = Subject(samples)
    boxes = {method: subject.box(method) for method in METHODS}
    lower = torch.stack([box.lower for box in boxes.values()]).amax(0)
    upper = torch.stack([box.upper for box in boxes.values()]).amin(0)
    value = subject.gradient()
    assert bool(((lower <= value) & (value <= upper)).all())
    return {method: float((box.upper - box.lower).mean()) for method, box in boxes.items()}


@pytest.mark.bench
def test_widths(benchmark: Any) -> None:
    """Of the linear domain at most a third of the intervals', at eps = 1/255."""
    found: dict[str, float] = {}
    benchmark.pedantic(lambda: found.update(widths(32)), iterations=1, rounds=1)
    shares = {method: width / found["interval"] for method, width in found.items()}
    benchmark.extra_info |= {"mean width": found, "share of the intervals'": shares}
    print(f"\n{benchmark.extra_info}")
    assert shares["linear"] <= 1 / 3


def test_widths_in_short() -> None:
    """Few samples."""
    found = widths(2)
    assert found["linear"] <= found["crown-interval"] <= found["interval"]
    assert found["linear"] <= found["interval"] / 3

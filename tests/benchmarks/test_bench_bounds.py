"""Our bounds against auto_LiRPA's: the same model, samples and box, in one run.

make bench        or: python -m pytest tests/benchmarks/test_bench_bounds.py -s

Both trace beforehand; a call takes a box and gives lower bounds of all margins. CROWN on the narrow
CNN7 is on 4 samples: auto_LiRPA takes ten seconds and 0.9 GB a sample there.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Timings, high_water, public_model  # type: ignore[import-not-found]
from torch import Tensor, nn

from attacks.threat import ThreatModel
from certify import lirpa
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.interval import Interval
from certify.propagate import propagate
from certify.specification import margins
from certify.trace import trace_model
from robustbench_c import data, zoo
from robustbench_c.zoo.nets.registry import build

Call = Callable[[], Tensor]


def narrow_cnn7() -> nn.Module:
    """CNN7 of width 16, as initialised."""
    torch.manual_seed(0)
    return build("cnn7", (1, 28, 28), 10, width=16).eval()


class Subject:
    """A model, samples and a box, ready for both."""

    def __init__(self, model: nn.Module, samples: int, eps: float) -> None:
        taken = data.load("fashion-mnist-mini").head(samples)
        self.model, self.x, self.y = model, taken.x, taken.y
        self.inputs = InputSet.around(self.x, ThreatModel.box("linf", eps))
        self.specification = margins(self.y, 10)
        self.program = bind_model(model, trace_model(model, self.x[:2]))
        self.clean = model(self.x).argmax(1) == self.y

    def ours(self, method: str) -> Tensor:
        """Our bounds of the margins, (samples, 9)."""
        known = analyse(self.program, self.inputs, tighten=method == "CROWN", lines=method != "IBP")
        return output_bounds(known, self.specification)

    def theirs(self, method: str) -> Call:
        """auto_LiRPA's, as a call on a model it has traced."""
        module = lirpa.load()
        if module is None:
            pytest.skip(str(lirpa.notice()))
        bounded = module.BoundedModule(self.model, torch.zeros_like(self.x))
        box = self.inputs.box
        ball = module.PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper)
        inputs = module.BoundedTensor(self.x, ball)

        def call() -> Tensor:
            found: Tensor = bounded.compute_bounds(
                x=(inputs,), method=method, C=self.specification.coefficients, bound_upper=False
            )[0]
            return found

        return call


def compare(
    benchmark: Any, timings: Timings, subject: Subject, method: str, rounds: int
) -> dict[str, float]:
    """Time both in turns; ours has to certify whatever theirs does."""
    theirs, found = subject.theirs(method), {}
    with torch.no_grad():
        rivals = {
            "ours": lambda: found.update(ours=subject.ours(method)),
            "auto_LiRPA": lambda: found.update(theirs=theirs()),
        }
        benchmark.pedantic(timings.run, args=(rivals, rounds), iterations=1, rounds=1)
    mine, other = found["ours"], found["theirs"]
    proved, also = ((bounds > 0).all(1) & subject.clean for bounds in (mine, other))
    facts = {
        "speed-up": timings.best["auto_LiRPA"] / timings.best["ours"],
        "ours, seconds": timings.best["ours"],
        "certified by ours": float(proved.sum()),
        "certified by auto_LiRPA": float(also.sum()),
        "theirs and not ours": float((also & ~proved).sum()),
        "most that ours is below, rounding included": (other - mine).max().item(),
        "range of the bounds": (other.max() - other.min()).item(),
    }
    benchmark.extra_info |= facts
    print(f"\n{method}: {facts}")
    assert facts["theirs and not ours"] == 0
    return facts


@pytest.mark.bench
@pytest.mark.parametrize(("method", "target"), [("IBP", 2.0), ("CROWN-IBP", 1.0), ("CROWN", 2.0)])
def test_small_cnn(benchmark: Any, timings: Timings, method: str, target: float) -> None:
    facts = compare(benchmark, timings, Subject(public_model(), 100, 0.1), method, 5)
    assert facts["speed-up"] >= target


@pytest.mark.bench
@pytest.mark.parametrize(
    ("method", "samples", "eps", "target"), [("IBP", 100, 0.004, 1.0), ("CROWN", 4, 0.004, 2.0)]
)
def test_narrow_cnn7(
    benchmark: Any, timings: Timings, method: str, samples: int, eps: float, target: float
) -> None:
    rounds = 5 if method == "IBP" else 1
    facts = compare(benchmark, timings, Subject(narrow_cnn7(), samples, eps), method, rounds)
    assert facts["speed-up"] >= target


def test_small_cnn_in_short(benchmark: Any, timings: Timings) -> None:
    """The shipped model, few samples, one round."""
    model = zoo.load("fmnist-cnn-pgd").module
    facts = compare(benchmark, timings, Subject(model, 8, 0.02), "CROWN", 1)
    assert facts["speed-up"] > 1


def _peak(which: str, network: str, samples: int, eps: float, channel: Any) -> None:
    """Megabytes that one CROWN call adds to a process's peak."""
    model = public_model() if network == "small" else narrow_cnn7()
    subject = Subject(model, samples, eps)
    call = subject.theirs("CROWN") if which == "theirs" else lambda: subject.ours("CROWN")
    before = high_water()
    with torch.no_grad():
        call()
    channel.put(high_water() - before)


@pytest.mark.bench
@pytest.mark.parametrize(("network", "samples", "eps"), [("small", 100, 0.1), ("cnn7", 4, 0.004)])
def test_memory_of_crown(benchmark: Any, network: str, samples: int, eps: float) -> None:
    public_model()
    if not Path("/proc/self/status").exists():
        pytest.skip("peaks are read from /proc")
    context = multiprocessing.get_context("spawn")
    peak: dict[str, float] = {}

    def measure() -> None:
        for which in ("ours", "theirs"):
            channel = context.Queue()
            job = context.Process(target=_peak, args=(which, network, samples, eps, channel))
            job.start()
            peak[which] = channel.get(timeout=600)
            job.join()

    benchmark.pedantic(measure, iterations=1, rounds=1)
    benchmark.extra_info |= {"peak, MB": peak, "ratio": peak["ours"] / peak["theirs"]}
    print(f"\n{benchmark.extra_info}")
    assert peak["ours"] <= peak["theirs"] / 2


@pytest.mark.bench
def test_parts_of_an_ibp_call(benchmark: Any) -> None:
    """What allowing for rounding costs: intervals with it and without."""
    subject = Subject(public_model(), 100, 0.1)
    box: dict[str, Tensor | Interval] = {"x": subject.inputs.box}
    with torch.no_grad():
        benchmark(lambda: propagate(subject.program, box))

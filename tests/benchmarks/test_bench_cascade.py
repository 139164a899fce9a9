"""The whole cascade on a model that others trained, against the time of auto_LiRPA's CROWN alone.

make bench        or: python -m pytest tests/benchmarks/test_bench_cascade.py -s
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import public_model  # type: ignore[import-not-found]

from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from certify import lirpa
from certify.methods import METHODS, Method
from certify.specification import margins
from robustbench_c import data, evaluate, zoo
from robustbench_c.evaluation.certifying import CertifyConfig

THREAT = ThreatModel.box("linf", 0.1)
BATCH = 100


def lirpa_crown(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Seconds that auto_LiRPA's CROWN takes for some samples, traced once, in batches."""
    module = lirpa.load()
    if module is None:
        pytest.skip(str(lirpa.notice()))
    started = time.perf_counter()
    with torch.no_grad():
        for part in range(0, len(x), BATCH):
            some, labels = x[part : part + BATCH], y[part : part + BATCH]
            bounded = module.BoundedModule(model, torch.zeros_like(some))
            low, high = (some - 0.1).clamp(0, 1), (some + 0.1).clamp(0, 1)
            ball = module.PerturbationLpNorm(norm=float("inf"), x_L=low, x_U=high)
            rows = margins(labels, 10).coefficients
            inputs = module.BoundedTensor(some, ball)
            bounded.compute_bounds(x=(inputs,), method="CROWN", C=rows, bound_upper=False)
    return time.perf_counter() - started


@pytest.mark.bench
def test_public_model_is_settled(benchmark: Any, tmp_path: Path) -> None:
    """At most 1% of the first 1,000 stay undecided, in three times auto_LiRPA's CROWN."""
    model, taken = public_model(), data.load("fashion-mnist").head(1000)

    def cascade() -> Any:
        config = PGDConfig(steps=40, restarts=3, step_size=0.01)
        certify = CertifyConfig("cascade")
        return evaluate(
            model,
            taken,
            threat=THREAT,
            attack=config,
            certify=certify,
            out=tmp_path,
            diagnose=False,
        )

    started = time.perf_counter()
    run = benchmark.pedantic(cascade, iterations=1, rounds=1)
    ours = time.perf_counter() - started
    verdicts = run.verdicts["verdict"]
    survived = torch.from_numpy(verdicts.isin(["certified", "undecided"]).to_numpy())
    theirs = lirpa_crown(model, taken.x[survived], taken.y[survived])
    undecided = float((verdicts == "undecided").mean())
    benchmark.extra_info |= {
        "verdicts": verdicts.value_counts().to_dict(),
        "undecided": undecided,
        "cascade, seconds": ours,
        "auto_LiRPA's CROWN on the survivors, seconds": theirs,
        "ratio": ours / theirs,
    }
    print(f"\n{benchmark.extra_info}")
    assert not (verdicts == "error").any()
    assert undecided <= 0.01
    assert ours <= 3 * theirs


@pytest.mark.bench
@pytest.mark.parametrize("name", ["fmnist-cnn-ibp", "fmnist-cnn-crown-ibp", "fmnist-cnn-mtl-ibp"])
def test_shipped_models_are_settled(benchmark: Any, tmp_path: Path, name: str) -> None:
    """The cascade settles at least 95% of the shipped images, in 2 s per hundred of them."""
    settled(benchmark, tmp_path, name, 1000, 20.0)


def test_a_shipped_model_is_settled_in_short(benchmark: Any, tmp_path: Path) -> None:
    settled(benchmark, tmp_path, "fmnist-cnn-ibp", 60, 60.0)


def settled(benchmark: Any, tmp_path: Path, name: str, samples: int, limit: float) -> None:
    """Run the cascade and check its share and its time; no single method certifies more."""
    loaded, taken = zoo.load(name), data.load("fashion-mnist-mini").head(samples)
    started = time.perf_counter()
    run = benchmark.pedantic(
        evaluate,
        args=(loaded, taken),
        kwargs={"threat": THREAT, "certify": CertifyConfig("cascade"), "out": tmp_path},
        iterations=1,
        rounds=1,
    )
    seconds = time.perf_counter() - started
    verdicts = run.verdicts["verdict"]
    share = float(verdicts.isin(["wrong", "broken", "certified"]).mean())
    benchmark.extra_info |= {"settled": share, "seconds per hundred": seconds / samples * 100}
    print(f"\n{name}: {benchmark.extra_info}")
    assert share >= 0.95
    assert seconds <= limit
    _compared(loaded, taken, verdicts == "certified", ("ibp", "crown-ibp", "crown"), tmp_path)


def _compared(
    model: Any, taken: Any, proved: Any, methods: tuple[Method, ...], out: Path
) -> dict[str, int]:
    """How many each method certifies alone with the same budgets; no more than the cascade."""
    counts = {"cascade": int(proved.sum())}
    for method in methods:
        certify = CertifyConfig(method)
        alone = evaluate(
            model, taken, threat=THREAT, attack="none", certify=certify, out=out, diagnose=False
        )
        counts[method] = int((alone.verdicts["verdict"] == "certified").sum())
        assert counts[method] <= counts["cascade"]
    return counts


@pytest.mark.bench
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("fmnist-cnn-ibp", 300),
        ("fmnist-cnn-crown-ibp", 300),
        ("fmnist-cnn-mtl-ibp", 300),
        ("public", 100),
    ],
)
def test_no_method_alone_certifies_more(
    benchmark: Any, tmp_path: Path, name: str, samples: int
) -> None:
    """With the same budgets a sample, alpha-crown and complete among them."""
    model = public_model() if name == "public" else zoo.load(name)
    taken = data.load("fashion-mnist-mini").head(samples)

    def counted() -> dict[str, int]:
        config = CertifyConfig("cascade")
        run = evaluate(model, taken, threat=THREAT, certify=config, out=tmp_path, diagnose=False)
        return _compared(model, taken, run.verdicts["verdict"] == "certified", METHODS, tmp_path)

    counts = benchmark.pedantic(counted, iterations=1, rounds=1)
    benchmark.extra_info |= counts
    print(f"\n{name}, {samples} samples: {counts}")

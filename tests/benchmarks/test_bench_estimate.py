"""What `estimate` says beside what runs take: small jobs over the zoo, each in a process."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks import memory
from attacks.fab import FABConfig
from attacks.pgd import PGDConfig
from attacks.square import SquareConfig
from attacks.suites import AUTO
from certify.methods import Budget
from robustbench_c import data, zoo
from robustbench_c.cli.threats import threat_of
from robustbench_c.evaluation import ExplainConfig, evaluate, evaluate_explanations
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.estimate import Estimate, estimate, estimate_explanations

TIME, MEMORY = 3.0, 1.5
"""How far off an estimate may be; the time also by a second."""


def predictions(name: str, samples: int, data_name: str = "fashion-mnist-mini", **options: Any):
    card = zoo.card(name)
    subset = data.load(data_name, split="test").head(samples)
    threat = threat_of(subset, card, "linf", options.pop("eps", None), "input", None)
    return zoo.load(name, "cpu"), subset, threat, options


JOBS: dict[str, tuple[bool, Callable[[], Any]]] = {
    "pgd of a robust cnn": (True, lambda: predictions("fmnist-cnn-pgd", 100)),
    "pgd of a standard cnn": (True, lambda: predictions("fmnist-cnn-standard", 1000, eps=0.1)),
    "auto": (True, lambda: predictions("fmnist-cnn-trades", 64, attack=AUTO)),
    "square": (
        True,
        lambda: predictions("fmnist-cnn-ibp", 100, attack=SquareConfig(queries=500)),
    ),
    "fab of a small mlp": (
        True,
        lambda: predictions("breast-cancer-mlp", 114, "breast-cancer", eps=0.5, attack=FABConfig()),
    ),
    "crown": (
        True,
        lambda: predictions(
            "fmnist-cnn-crown-ibp", 100, attack="none", certify=CertifyConfig("crown")
        ),
    ),
    "cascade": (
        True,
        lambda: predictions(
            "fmnist-cnn-sparsevlr-90",
            48,
            attack=PGDConfig(steps=20, restarts=1),
            certify=CertifyConfig("cascade", Budget(subproblems=100)),
        ),
    ),
    "radii": (
        True,
        lambda: predictions(
            "fmnist-cnn-mtl-ibp", 300, attack="none", certify=CertifyConfig("ibp", radius=True)
        ),
    ),
    "explanations of an mlp": (
        False,
        lambda: predictions("german-mlp-explain", 100, "german-credit", config=ExplainConfig()),
    ),
    "explanations of a cnn": (
        False,
        lambda: predictions(
            "fmnist-softplus-explain",
            64,
            config=ExplainConfig(methods=("interval", "crown-interval")),
        ),
    ),
}


def child(work: Callable[[], Any]) -> Any:
    """The result of a function that runs in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        torch.set_num_threads(1)
        theirs.send(work())

    process = context.Process(target=run)
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def estimated(name: str) -> tuple[Estimate, float]:
    about_predictions, make = JOBS[name]
    model, subset, threat, options = make()
    began = time.perf_counter()
    function = estimate if about_predictions else estimate_explanations
    return function(model, subset, threat=threat, **options), time.perf_counter() - began


def measured(name: str, out: Path) -> tuple[float, int]:
    about_predictions, make = JOBS[name]
    model, subset, threat, options = make()
    function = evaluate if about_predictions else evaluate_explanations
    memory.reset_peak(torch.device("cpu"))
    began = time.perf_counter()
    function(model, subset, threat=threat, out=out, **options)
    return time.perf_counter() - began, memory.peak(torch.device("cpu"))


@pytest.mark.bench
@pytest.mark.parametrize("name", JOBS)
def test_an_estimate_is_near_to_what_a_run_takes(name, tmp_path):
    told, took = child(lambda: estimated(name))
    seconds, peak = child(lambda: measured(name, tmp_path))
    print(
        f"\n{name}: {told.likely:.1f} s (at most {told.most:.1f}) and {told.memory >> 20} MiB "
        f"estimated in {took:.1f} s; {seconds:.1f} s and {peak >> 20} MiB measured: "
        f"{told.likely / seconds:.2f} and {told.memory / peak:.2f} times"
    )
    near = seconds / TIME <= told.likely <= seconds * TIME
    assert near or abs(told.likely - seconds) < 1
    assert seconds <= told.most * TIME
    assert peak / MEMORY <= told.memory <= peak * MEMORY

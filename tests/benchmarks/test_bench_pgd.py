"""PGD-40 on the small CNN and 1,000 images: as strong as foolbox's, and faster; all in one run.

make bench        or: python -m pytest tests/benchmarks --benchmark-only -s
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Subject, Timings, load_subject  # type: ignore[import-not-found]

from attacks.balls import Ball
from attacks.classifier import prepare
from attacks.driver import inside_box
from attacks.pgd import PGDConfig, pgd
from attacks.randomness import stream_keys
from attacks.threat import ThreatModel

EPS, STEPS, STEP_SIZE = 0.1, 40, 0.025
THREAT = ThreatModel.box("linf", EPS)
CONFIG = PGDConfig(steps=STEPS, restarts=1, step_size=STEP_SIZE, loss="ce")
FOOLBOX_BATCHES = (100, 250, 500, 1000)
ROUNDS = 3


def ours(subject: Subject) -> float:
    """Robust accuracy by our PGD; the choice of tiles and the clean pass are timed too."""
    classifier = prepare(subject.classifier.module, subject.x)
    right = classifier.logits(subject.x).argmax(1) == subject.y
    x, y, ids = subject.x[right], subject.y[right], subject.ids[right]
    found = pgd(classifier, x, y, ids, THREAT, CONFIG, seed=0).found
    return int((~found).sum()) / len(subject.x)


def foolbox_pgd(subject: Subject, batch: int) -> float:
    """Robust accuracy by foolbox's PGD from the same starting points."""
    foolbox = pytest.importorskip("foolbox")
    keys = stream_keys(0, "pgd", subject.ids.tolist(), 0)
    starts = Ball.around(THREAT, subject.x).start(keys)
    model = foolbox.PyTorchModel(subject.classifier.module, bounds=(0, 1), device="cpu")

    class SameStart(foolbox.attacks.LinfPGD):  # type: ignore[misc, name-defined]
        rows: slice

        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return type(x0)(starts[self.rows])

    attack = SameStart(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=True)
    survived = 0
    for start in range(0, len(subject.x), batch):
        attack.rows = slice(start, start + batch)
        x, y = subject.x[attack.rows], subject.y[attack.rows]
        _, clipped, broken = attack(model, x, y, epsilons=EPS)
        assert inside_box(clipped, THREAT).all()
        survived += int((~broken).sum())
    return survived / len(subject.x)


@pytest.mark.parametrize(
    ("name", "target"), [("fmnist-cnn-pgd", 2.0), ("fmnist-cnn-standard", 5.0)]
)
@pytest.mark.bench
def test_pgd_against_foolbox(benchmark: Any, timings: Timings, name: str, target: float) -> None:
    compare(benchmark, timings, load_subject(name), ROUNDS, target)


@pytest.mark.slow
def test_pgd_against_foolbox_in_short(benchmark: Any, timings: Timings) -> None:
    """The same on 300 images: the choice of tiles weighs more there, and the rounds are few."""
    compare(benchmark, timings, load_subject("fmnist-cnn-standard", 300), 1, 2.0)


def compare(benchmark: Any, timings: Timings, subject: Subject, rounds: int, target: float) -> None:
    """Run both in turns; ours has to break as much and be `target` times as fast."""
    accuracy: dict[str, float] = {}

    def keep(rival: str, value: float) -> None:
        accuracy[rival] = value

    rivals = {"ours": lambda: keep("ours", ours(subject))} | {
        f"foolbox, batch {b}": lambda b=b: keep(f"foolbox, batch {b}", foolbox_pgd(subject, b))
        for b in FOOLBOX_BATCHES
    }
    benchmark.pedantic(timings.run, args=(rivals, rounds), iterations=1, rounds=1)
    best = min((t, r) for r, t in timings.best.items() if r != "ours")
    whole = timings.best["foolbox, batch 1000"] / timings.best["ours"]
    strict = best[0] / timings.best["ours"]
    benchmark.extra_info |= {
        "seconds": timings.best,
        "robust accuracy": accuracy,
        "speed-up over foolbox with all in one batch": whole,
        f"speed-up over foolbox's best ({best[1]})": strict,
    }
    print(f"\n{benchmark.extra_info}")
    assert accuracy["ours"] <= min(v for r, v in accuracy.items() if r != "ours")
    assert whole >= target


def bare_loop(subject: Subject, batch: int, sweeps: int) -> None:
    """One input gradient for each sample and sweep, by nothing but torch."""
    for _ in range(sweeps):
        for start in range(0, len(subject.x), batch):
            x = subject.x[start : start + batch].detach().requires_grad_()
            loss = F.cross_entropy(subject.classifier.module(x), subject.y[start : start + batch])
            torch.autograd.grad(loss, x)


@pytest.mark.bench
def test_gradient_cost_against_the_bare_loop(benchmark: Any, timings: Timings) -> None:
    """PGD's cost of a gradient, steps and bookkeeping included, over that of the best bare loop.

    Steps so short that nothing breaks or repeats: every sample takes every step. As many gradients
    for each rival, so that a busy machine is as unfair to one as to the other.
    """
    subject = load_subject("fmnist-cnn-pgd")
    right = subject.classifier.logits(subject.x).argmax(1) == subject.y
    subject.x, subject.y, subject.ids = subject.x[right], subject.y[right], subject.ids[right]
    config = PGDConfig(steps=STEPS, restarts=1, step_size=1e-6)
    threat = ThreatModel.box("linf", 1e-4)
    spent: list[int] = []

    def attack() -> None:
        result = pgd(subject.classifier, subject.x, subject.y, subject.ids, threat, config, seed=0)
        spent.append(int(result.backwards.sum()))

    batches = (32, 64, 100, 128, 256, 500, 1000)
    rivals = {"pgd": attack} | {
        f"bare {b}": lambda b=b: bare_loop(subject, b, STEPS) for b in batches
    }
    benchmark.pedantic(timings.run, args=(rivals, 4), iterations=1, rounds=1)
    assert spent[0] >= 0.99 * STEPS * len(subject.x)
    gradients = {r: spent[0] if r == "pgd" else STEPS * len(subject.x) for r in rivals}
    cost = {r: seconds / gradients[r] * 1e6 for r, seconds in timings.best.items()}
    ratio = cost["pgd"] / min(v for r, v in cost.items() if r != "pgd")
    benchmark.extra_info |= {
        "microseconds per gradient": cost,
        "tiles": list(subject.classifier.tiles),
        "ratio to the best bare loop": ratio,
    }
    print(f"\n{benchmark.extra_info}")
    assert ratio <= 1.15

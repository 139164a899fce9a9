"""Makes docs/attack-table.md: `--attack auto` beside AutoAttack's standard suite, model by model.

    pip install -e ".[compare]"                  AutoAttack itself, as packaged by others
    python scripts/attack_table.py               every shipped model with ten classes (hours)
    python scripts/attack_table.py fmnist-cnn-ibp    these alone
    python scripts/attack_table.py --table       what is done so far, without any work

Both run on the same samples, one after the other, in one process. Work is counted in gradients: a
forward pass of a sample that no gradient follows is a third of one. Of ours, passes that fill up a
tile count as well. Results are kept in docs/attack-table.json, and the page is read off them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier, exact_passes, prepare
from attacks.driver import recheck
from attacks.registry import kind_of
from attacks.suites import AUTO
from attacks.threat import ThreatModel
from robustbench_c import data, zoo
from robustbench_c.errors import did_you_mean
from robustbench_c.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGE, KEPT = ROOT / "docs" / "attack-table.md", ROOT / "docs" / "attack-table.json"
SAMPLES, SEED, FORWARD = 200, 0, 1 / 3
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
EPS = {"fmnist-cnn-standard": 0.02, "fmnist-softplus-standard": 0.02}
"""Where Linf 0.1 leaves nothing to be found out."""


class Counted(nn.Module):
    """A model that counts what is asked of it, in gradients."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.work = module, 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits, and a line in the books."""
        self.work += len(x) * (1.0 if x.requires_grad and torch.is_grad_enabled() else FORWARD)
        logits: Tensor = self.module(x)
        return logits


@dataclass
class Side:
    """One suite on one model: samples that each part broke, its gradients and seconds."""

    broken: dict[str, int] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, part: str, broken: int, gradients: float, seconds: float) -> None:
        """Note a part."""
        self.broken[part], self.gradients[part] = broken, gradients
        self.seconds[part] = seconds


def ours(classifier: TiledClassifier, x: Tensor, y: Tensor, ids: Tensor, eps: float) -> Side:
    """`--attack auto`, each find checked afresh."""
    side, threat = Side(), ThreatModel.box("linf", eps)
    for name, config in AUTO.parts:
        before, started = (classifier.work.forwards, classifier.work.backwards), time.perf_counter()
        result = kind_of(config).run(classifier, x, y, ids, threat, config, SEED)
        held = result.found & recheck(classifier, None, x, result.adversarial, y, threat).broken
        gradients = classifier.work.backwards - before[1]
        forwards = classifier.work.forwards - before[0] - gradients
        seconds = time.perf_counter() - started
        side.add(name, int(held.sum()), gradients + FORWARD * forwards, seconds)
        x, y, ids = x[~held], y[~held], ids[~held]
    return side


def standard(module: nn.Module, x: Tensor, y: Tensor, eps: float) -> Side:
    """AutoAttack's standard suite, part by part on what is left, as it runs them itself."""
    from pyautoattack import AutoAttack

    side, counted = Side(), Counted(module)
    for name in STANDARD:
        suite = AutoAttack(
            counted, norm="Linf", eps=eps, seed=SEED, attacks=[name], version="custom"
        )
        suite.verbose = False
        suite.apgd.n_restarts = suite.fab.n_restarts = suite.apgd_targeted.n_restarts = 1
        suite.fab.n_target_classes = suite.apgd_targeted.n_target_classes = 9
        suite.square.n_queries = 5000
        before, started = counted.work, time.perf_counter()
        found = suite.run_standard_evaluation(x, y, batch_size=SAMPLES)
        found = found[0] if isinstance(found, tuple) else found
        seconds = time.perf_counter() - started
        held = module(found).argmax(1) != y
        side.add(name, int(held.sum()), counted.work - before, seconds)
        x, y = x[~held], y[~held]
        if len(x) == 0:
            break
    return side


def measure(name: str) -> dict[str, Any]:
    """Both suites on the first samples that a model gets right."""
    loaded, eps = zoo.load(name), EPS.get(name, 0.1)
    test = data.load("fashion-mnist-mini", split="test").head(SAMPLES)
    with exact_passes():
        classifier = prepare(loaded.module, test.x)
        right = classifier.logits(test.x).argmax(1) == test.y
        x, y, ids = test.x[right], test.y[right], test.ids[right]
        mine = ours(classifier, x, y, ids, eps)
        theirs = standard(loaded.module, x, y, eps)
    sides = {"auto": vars(mine), "autoattack": vars(theirs)}
    return {"model": name, "eps": eps, "samples": SAMPLES, "right": len(x), **sides}


def names() -> list[str]:
    """The shipped models of Fashion-MNIST."""
    return [name for name in zoo.names() if (zoo.card(name).data or "").startswith("fashion")]


def read() -> list[dict[str, Any]]:
    """What is done so far."""
    kept: list[dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else []
    return kept


INTRO = f"""# Attack strength and cost beside AutoAttack

Made by `scripts/attack_table.py`: the first {SAMPLES} test images, Linf, one run on one machine.
*Robust*: samples left of those that are right on the clean image. *Gradients*: auto's work for each
of these, a forward pass alone counted as a third. *Less*: how many times as much AutoAttack's
standard suite takes; in brackets the suite without Square, whose finds do not count then either.

| model | eps | right | robust: auto | AutoAttack | no Square | gradients | less work | less time |
|---|---|---|---|---|---|---|---|---|
"""


def line(row: dict[str, Any]) -> str:
    """A model's line."""
    mine, theirs = row["auto"], row["autoattack"]
    left = [row["right"] - sum(side["broken"].values()) for side in (mine, theirs)]
    square = theirs["broken"].get("square", 0)

    def less(key: str) -> str:
        total, own = sum(theirs[key].values()), sum(mine[key].values())
        return f"{total / own:.1f} ({(total - theirs[key].get('square', 0)) / own:.1f})"

    cells = (
        row["model"], f"{row['eps']:g}", row["right"], *left, left[1] + square,
        f"{sum(mine['gradients'].values()) / row['right']:.0f}", less("gradients"), less("seconds"),
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def shares(rows: list[dict[str, Any]]) -> str:
    """What each part of both suites broke and took, over all models."""
    lines = [
        "\n## Part by part\n",
        "| suite | part | broken | work | time |",
        "|---|---|---|---|---|",
    ]
    for suite in ("auto", "autoattack"):
        totals = {key: sum(sum(row[suite][key].values()) for row in rows) for key in vars(Side())}
        for part in dict.fromkeys(part for row in rows for part in row[suite]["broken"]):
            own = {key: sum(row[suite][key].get(part, 0) for row in rows) for key in totals}
            work, took = (own[key] / totals[key] for key in ("gradients", "seconds"))
            lines.append(f"| {suite} | {part} | {own['broken']} | {work:.0%} | {took:.0%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the models named on the command line, or all, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", metavar="MODEL", help="shipped models [all]")
    parser.add_argument("--table", action="store_true", help="write the page of what is done")
    given = parser.parse_args()
    known = names()
    unknown = [name for name in given.models if name not in known]
    if unknown:
        parser.error(f"no model '{unknown[0]}'; {did_you_mean(unknown[0], known)}")
    for name in [] if given.table else given.models or known:
        found = measure(name)
        kept = {row["model"]: row for row in read()} | {name: found}
        ordered = [kept[key] for key in known if key in kept]
        write_atomically(KEPT, (json.dumps(ordered, indent=1) + "\n").encode())
        sys.stderr.write(line(found) + "\n")
    rows = read()
    write_atomically(PAGE, (INTRO + "\n".join(map(line, rows)) + "\n" + shares(rows)).encode())


if __name__ == "__main__":
    main()

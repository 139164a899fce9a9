"""Makes docs/attack-table.md: `--attack auto` beside AutoAttack's standard suite, model by model.

    pip install -e ".[compare]"                  AutoAttack itself, as packaged by others
    python scripts/attack_table.py               every shipped model (an hour)
    python scripts/attack_table.py fmnist-cnn-ibp    these alone
    python scripts/attack_table.py --held-out    the next 200 images, which nothing was chosen by
    python scripts/attack_table.py --table       what is done so far, without any work

Both run on the same samples, one after the other, in one process. Work is counted in gradients: a
forward pass of a sample that no gradient follows is a third of one. Of ours, passes that fill up a
tile count as well. AutoAttack itself stops with an error on two classes and on tables: our own form
of its suite stands in there. A model by others is measured where it is beside the project. Results
are kept in docs/attack-table.json, each with a hash of the suites' settings, and the page is read
off those of the suites as they are now.
"""

from __future__ import annotations

import argparse
import hashlib
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
from attacks.losses import margin
from attacks.registry import kind_of
from attacks.suites import AUTO, AUTOATTACK, Suite
from attacks.threat import ThreatModel, feature_ranges
from leaderboards.near import is_near
from robustbench_c import __version__, data, zoo
from robustbench_c.data import Dataset
from robustbench_c.errors import did_you_mean
from robustbench_c.evaluation.protocol_steps import protocol_steps
from robustbench_c.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGE, KEPT = ROOT / "docs" / "attack-table.md", ROOT / "docs" / "attack-table.json"
BESIDE = ROOT.parent / "shared/data"
PUBLIC = BESIDE / "models/convex_adversarial/fashion_mnist.pth"
SAMPLES, SEED, FORWARD = 200, 0, 1 / 3
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
EPS = {"fmnist-cnn-standard": 0.02, "fmnist-softplus-standard": 0.02}
"""Where Linf 0.1 leaves nothing to be found out."""


@dataclass(frozen=True)
class Case:
    """A model, what it is attacked on, and how much the attacker may do.

    Attributes:
        name: Of the model.
        source: Of the data.
        eps: Linf radius; of tables, in units of each feature's range.
        weights: What is loaded.
        arguments: Of `zoo.load`.
    """

    name: str
    source: str
    eps: float
    weights: str
    arguments: dict[str, Any] = field(default_factory=dict)


def cases() -> dict[str, Case]:
    """The shipped models, and a public one where it is there."""
    found = {}
    for name in zoo.names():
        source = zoo.card(name).data or ""
        source = "fashion-mnist-mini" if source == "fashion-mnist" else source
        found[name] = Case(name, source, EPS.get(name, 0.1), name)
    if PUBLIC.exists():
        shape = {"arch": "cnn-small", "input_shape": (1, 28, 28), "n_classes": 10}
        name = "convex_adversarial"
        found[name] = Case(name, "fashion-mnist-mini", 0.1, str(PUBLIC), shape)
    return found


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
    """One suite on one model: samples that each part broke, its gradients, processor seconds."""

    broken: dict[str, int] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, part: str, broken: int, gradients: float, seconds: float) -> None:
        """Note a part."""
        self.broken[part], self.gradients[part] = broken, gradients
        self.seconds[part] = seconds


def ours(suite: Suite, classifier: TiledClassifier, samples: Dataset, threat: ThreatModel) -> Side:
    """A suite of ours, each find checked afresh."""
    side, (x, y, ids) = Side(), (samples.x, samples.y, samples.ids)
    clean = margin(classifier.logits(x), y)
    lowest = clean
    for name, config in (*suite.parts, *suite.closing):
        if (name, config) in suite.closing:
            near = is_near(lowest, clean, suite.near)
            x, y, ids, lowest, clean = x[near], y[near], ids[near], lowest[near], clean[near]
            if len(x) == 0:
                break
        before, started = (classifier.work.forwards, classifier.work.backwards), time.process_time()
        result = kind_of(config).run(classifier, x, y, ids, threat, config, SEED)
        held = result.found & recheck(classifier, None, x, result.adversarial, y, threat).broken
        gradients = classifier.work.backwards - before[1]
        forwards = classifier.work.forwards - before[0] - gradients
        seconds = time.process_time() - started
        side.add(name, int(held.sum()), gradients + FORWARD * forwards, seconds)
        x, y, ids, clean = x[~held], y[~held], ids[~held], clean[~held]
        lowest = torch.fmin(lowest, result.lowest)[~held]
        if len(x) == 0:
            break
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
        before, started = counted.work, time.process_time()
        found = suite.run_standard_evaluation(x, y, batch_size=SAMPLES)
        found = found[0] if isinstance(found, tuple) else found
        seconds = time.process_time() - started
        held = module(found).argmax(1) != y
        side.add(name, int(held.sum()), counted.work - before, seconds)
        x, y = x[~held], y[~held]
        if len(x) == 0:
            break
    return side


def samples_of(source: str) -> Dataset:
    """The test samples of a set; Adult's are beside the project, or in their usual place."""
    folder = BESIDE / "uci/adult" if source == "adult" else None
    return data.load(source, split="test", data_dir=folder if folder and folder.exists() else None)


def threat_on(samples: Dataset, eps: float) -> ThreatModel:
    """Linf; of tables, in units of each feature's range."""
    scale = None
    if samples.x.dim() == 2:
        scale = feature_ranges(samples.lower, samples.upper, samples.shape)
    return ThreatModel("linf", eps, samples.lower, samples.upper, samples.immutable_mask, scale)


def suites_sha256(itself: bool) -> str:
    """Hash of all settings and versions of the suites of ours that a row is about.

    Args:
        itself: Whether AutoAttack itself is beside auto, and not our form of it.
    """
    suites, threat = (AUTO,) if itself else (AUTO, AUTOATTACK), ThreatModel.box("linf", 0.1)
    steps = [step for suite in suites for step in protocol_steps(suite, None, threat)]
    content = json.dumps([step.model_dump(mode="json") for step in steps], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def measure(case: Case, skip: int) -> dict[str, Any]:
    """Both suites on the first samples after some that a model gets right."""
    module = zoo.load(case.weights, **case.arguments).module
    test = samples_of(case.source)
    test = test.subset(range(skip, min(skip + SAMPLES, len(test))))
    image, threat = test.x.dim() == 4, threat_on(test, case.eps)
    with exact_passes():
        classifier = prepare(module, test.x)
        right = (classifier.logits(test.x).argmax(1) == test.y).nonzero()[:, 0]
        asked = test.subset(right)
        mine = ours(AUTO, classifier, asked, threat)
        if image:
            theirs = standard(module, asked.x, asked.y, case.eps)
        else:
            theirs = ours(AUTOATTACK, classifier, asked, threat)
    return {
        "model": case.name,
        "version": __version__,
        "suites_sha256": suites_sha256(image),
        "skip": skip,
        "eps": case.eps,
        "samples": len(test),
        "right": len(right),
        "itself": image,
        "auto": vars(mine),
        "autoattack": vars(theirs),
    }


def read() -> list[dict[str, Any]]:
    """What is done so far."""
    kept: list[dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else []
    return kept


INTRO = f"""# Attack strength and cost beside AutoAttack

Made by `scripts/attack_table.py`: the first {SAMPLES} test samples, Linf (of tables, in units of
each feature's range), each model's two suites one after the other in one process. *Robust*: samples
left of those that are right without an attack. *Gradients*: auto's work for each of these, a
forward pass alone counted as a third, passes that fill up a tile counted as well: of few samples,
the last two parts of auto cost as much as of 32. *Less*: how many times as much AutoAttack's
standard suite takes, in work and in processor time; in brackets the suite without Square, whose
finds do not count then either. A star: AutoAttack itself stops with an error there (two classes,
tables), and our form of its suite is beside ours.

The parts of auto and their budgets were chosen with the results on these samples in view.
"""
HELD_OUT = f"""
## The next {SAMPLES} images

Nothing was chosen by these (`python scripts/attack_table.py --held-out`).
"""
STALE = """
## Not of these suites

Measured with other settings of auto or of our form of AutoAttack's suite, and not counted:

"""
HEAD = """
| model | eps | right | robust: auto | AutoAttack | no Square | gradients | less work | less time |
|---|---|---|---|---|---|---|---|---|
"""


def robust(rows: list[dict[str, Any]], suite: str) -> int:
    """Samples that a suite left."""
    return sum(row["right"] - sum(row[suite]["broken"].values()) for row in rows)


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """A line about a model, or about several together."""
    eps = {row["eps"] for row in rows}
    left = robust(rows, "autoattack")
    square = sum(row["autoattack"]["broken"].get("square", 0) for row in rows)
    right = sum(row["right"] for row in rows)

    def total(suite: str, key: str, *without: str) -> float:
        return sum(v for row in rows for k, v in row[suite][key].items() if k not in without)

    def less(key: str) -> str:
        own = total("auto", key)
        whole, rest = total("autoattack", key), total("autoattack", key, "square")
        return f"{whole / own:.1f} ({rest / own:.1f})"

    cells = (
        name + ("" if all(row["itself"] for row in rows) else " *"),
        f"{eps.pop():g}" if len(eps) == 1 else "", right, robust(rows, "auto"), left, left + square,
        f"{total('auto', 'gradients') / right:.0f}", less("gradients"), less("seconds"),
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def shares(rows: list[dict[str, Any]]) -> str:
    """What each part of both suites broke and took, over all models."""
    lines = [
        "\n## Part by part, beside AutoAttack itself\n",
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


def page(rows: list[dict[str, Any]]) -> str:
    """The page: a line for each model, their sum, and the parts; then the same of other samples.

    Rows of suites of other settings are named at its end, and counted nowhere.
    """
    present = [row for row in rows if row.get("suites_sha256") == suites_sha256(row["itself"])]
    first, rest = ([r for r in present if bool(r["skip"]) is later] for later in (False, True))
    found = INTRO + lines_of(first) + shares([row for row in first if row["itself"]])
    found += HELD_OUT + lines_of(rest) if rest else ""
    stale = [
        f"- {row['model']}{', the next images' * bool(row['skip'])}\n"
        for row in rows
        if row not in present
    ]
    return found + (STALE + "".join(stale) if stale else "")


def lines_of(rows: list[dict[str, Any]]) -> str:
    """A table: a line for each model, and their sum."""
    lines = [line(row["model"], [row]) for row in rows]
    for name, itself in (("all beside AutoAttack itself", True), ("all beside our form", False)):
        if together := [row for row in rows if row["itself"] == itself]:
            lines.append(line(f"**{name}**", together))
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Measure the models named on the command line, or all, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", metavar="MODEL", help="shipped models [all]")
    parser.add_argument("--held-out", action="store_true", help="the next images instead")
    parser.add_argument("--table", action="store_true", help="write the page of what is done")
    given, known = parser.parse_args(), cases()
    if given.held_out:
        known = {name: case for name, case in known.items() if case.source == "fashion-mnist-mini"}
    unknown = [name for name in given.models if name not in known]
    if unknown:
        parser.error(f"no model '{unknown[0]}'; {did_you_mean(unknown[0], list(known))}")
    for name in [] if given.table else given.models or known:
        found = measure(known[name], skip := SAMPLES if given.held_out else 0)
        kept = {(row["model"], row["skip"]): row for row in read()} | {(name, skip): found}
        ordered = [
            kept[key] for key in sorted(kept, key=lambda k: (k[1], not kept[k]["itself"], k))
        ]
        write_atomically(KEPT, (json.dumps(ordered, indent=1) + "\n").encode())
        sys.stderr.write(line(name, [found]) + "\n")
    write_atomically(PAGE, page(read()).encode())


if __name__ == "__main__":
    main()

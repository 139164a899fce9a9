"""What patience saves `--attack auto`, and what it loses.

    python scripts/attack_patience.py                     three models (some minutes)
    python scripts/attack_patience.py fmnist-cnn-ibp --samples 1000

The margin of every sample at every point that successive halving looks at is written down, and
rules are then tried on what was written: with patience `p` and fall `q` a search ends where its
lowest margin has not fallen by the share `q` within `p` of all passes that its plan has. That hangs
on the sample's own search alone, as it has to. Printed: passes of the suite that are saved, of all,
and breaks that are lost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

from torch import Tensor

from attacks.classifier import exact_passes, prepare
from attacks.halving import HalvingConfig
from attacks.lanes import Lanes, Method, drive
from attacks.losses import margin
from attacks.problem import Problem
from attacks.registry import kind_of
from attacks.result import AttackResult
from attacks.suites import AUTO
from attacks.threat import ThreatModel
from robustbench_c import data, zoo

MODELS = ("fmnist-cnn-ibp", "fmnist-cnn-pgd", "fmnist-cnn-sparsevlr-95")
EPS, SEED = 0.1, 0
PATIENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
FALL = (0.0, 0.01, 0.05)
HALVING = HalvingConfig(steps=8)


Notes = dict[int, list[float]]


def noting(notes: Notes) -> Callable[[Problem, Method], AttackResult]:
    """The engine, which writes down each sample's margin at every point it looks at."""

    def driven(problem: Problem, method: Method) -> AttackResult:
        move = method.move

        def noted(lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor | None:
            gaps, ids = margin(logits, lanes.y), problem.ids[lanes.sample]
            for row in lanes.live.nonzero()[:, 0].tolist():
                notes.setdefault(int(ids[row]), []).append(float(gaps[row]))
            return move(lanes, logits, loss, gradient)

        method.move = noted  # type: ignore[method-assign]
        return drive(problem, method)

    return driven


@dataclass
class Search:
    """How a sample fared.

    Attributes:
        before: Passes before successive halving.
        seen: Margins at its passes.
        broke: Whether it broke there.
        plan: Passes that there are at most.
    """

    before: int
    seen: list[float]
    broke: bool
    plan: int

    def end(self, patience: float, fall: float) -> int:
        """The pass at which the rule ends it."""
        lowest, back = list[float](), round(patience * self.plan)
        for step, value in enumerate(self.seen):
            lowest.append(min(value, lowest[-1] if lowest else value))
            if step >= back and lowest[-1] > (1 - fall) * lowest[step - back]:
                return step + 1
            if step >= back and fall == 0 and lowest[-1] == lowest[step - back]:
                return step + 1
        return len(self.seen)


def searches(name: str, samples: int) -> tuple[list[Search], int]:
    """The search of each sample that the model gets right; breaks before successive halving."""
    test = data.load("fashion-mnist-mini", split="test").head(samples)
    threat, notes = ThreatModel.box("linf", EPS), (Notes(), Notes())
    with exact_passes():
        classifier = prepare(zoo.load(name).module, test.x)
        right = classifier.logits(test.x).argmax(1) == test.y
        x, y, ids = test.x[right], test.y[right], test.ids[right]
        plan = sum(
            runs * (steps + 1) for runs, steps in HALVING.plan(classifier.logits(x).shape[1])
        )
        early = 0
        for (_, config), place, book in zip(AUTO.parts, ("apgd", "halving"), notes, strict=True):
            with patch(f"attacks.{place}.drive", noting(book)):
                found = kind_of(config).run(classifier, x, y, ids, threat, config, SEED).found
            if place == "apgd":
                early = int(found.sum())
                x, y, ids = x[~found], y[~found], ids[~found]
    broke = set(ids[found].tolist())
    return [
        Search(len(seen), notes[1].get(sample, []), sample in broke, plan)
        for sample, seen in notes[0].items()
    ], early


def main() -> None:
    """Search, and try the rules."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--samples", type=int, default=200, help="the first N test images [200]")
    given = parser.parse_args()
    kept = {name: searches(name, given.samples) for name in given.models}
    lines = ["| patience | fall | " + " | ".join(kept) + " |", "|---|---|" + "---|" * len(kept)]
    for patience in PATIENCE:
        for fall in FALL:
            cells = []
            for found, early in kept.values():
                total = sum(search.before + len(search.seen) for search in found)
                ends = [search.end(patience, fall) for search in found]
                saved = sum(len(s.seen) - e for s, e in zip(found, ends, strict=True))
                lost = sum(s.broke and e < len(s.seen) for s, e in zip(found, ends, strict=True))
                broken = early + sum(search.broke for search in found)
                cells.append(f"{saved / total:.0%} saved, {lost} of {broken} lost")
            lines.append(f"| {patience:g} | {fall:.0%} | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

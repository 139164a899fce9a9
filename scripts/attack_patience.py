"""What patience saves `--attack auto`, and what it loses.

    python scripts/attack_patience.py                     three models (some minutes)
    python scripts/attack_patience.py fmnist-cnn-pgd --samples 1000

Without patience, the margin of every sample at every point that successive halving looks at is
written down, and the rule of `attacks.halving` is then tried on what was written, for several
patiences. In the last line it is not tried but run: the suite as it is shipped, up to there.
Printed: passes that are saved, of all up to there, and breaks that are lost there: Square follows,
which may find some of them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from unittest.mock import patch

from torch import Tensor

from attacks.classifier import TiledClassifier, exact_passes, prepare
from attacks.halving import HalvingConfig
from attacks.lanes import Lanes, Method, drive
from attacks.losses import margin
from attacks.problem import Problem
from attacks.registry import kind_of
from attacks.result import AttackResult
from attacks.suites import AUTO, Suite
from attacks.threat import ThreatModel
from robustbench_c import data, zoo

MODELS = ("fmnist-cnn-ibp", "fmnist-cnn-pgd", "fmnist-cnn-sparsevlr-95")
EPS, SEED = 0.1, 0
PATIENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
FALL = 0.01
SHIPPED = replace(AUTO, parts=AUTO.parts[:2])
FULL = replace(
    SHIPPED,
    parts=tuple(
        (n, replace(c, patience=1.0) if isinstance(c, HalvingConfig) else c)
        for n, c in SHIPPED.parts
    ),
)


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
        passes: Passes of both parts.
        seen: Margins at those of successive halving.
        broke: Whether it broke.
        plan: Passes of successive halving, at most.
    """

    passes: int
    seen: list[float]
    broke: bool
    plan: int

    def saved(self, patience: float) -> int:
        """Passes that the rule saves."""
        mark, since, most = float("inf"), 0, ceil(patience * self.plan)
        for number, value in enumerate(self.seen, 1):
            mark, since = (value, number) if value <= (1 - FALL) * mark else (mark, since)
            if number - since >= most:
                return len(self.seen) - number
        return 0


def searches(
    suite: Suite, classifier: TiledClassifier, x: Tensor, y: Tensor, ids: Tensor
) -> list[Search]:
    """The search of each sample by the parts of a suite."""
    threat, notes, passes, broke = ThreatModel.box("linf", EPS), Notes(), Counter[int](), set[int]()
    plan, everyone = HalvingConfig(steps=8).passes(classifier.logits(x).shape[1]), ids.tolist()
    for _, config in suite.parts:
        with patch("attacks.halving.drive", noting(notes)):
            result = kind_of(config).run(classifier, x, y, ids, threat, config, SEED)
        passes.update(dict(zip(ids.tolist(), result.forwards.tolist(), strict=True)))
        broke |= set(ids[result.found].tolist())
        x, y, ids = x[~result.found], y[~result.found], ids[~result.found]
    return [Search(passes[i], notes.get(i, []), i in broke, plan) for i in everyone]


def measure(name: str, samples: int) -> list[str]:
    """A model's cell of each line."""
    test = data.load("fashion-mnist-mini", split="test").head(samples)
    with exact_passes():
        classifier = prepare(zoo.load(name).module, test.x)
        right = classifier.logits(test.x).argmax(1) == test.y
        given = classifier, test.x[right], test.y[right], test.ids[right]
        full, shipped = searches(FULL, *given), searches(SHIPPED, *given)
    total, broken = sum(s.passes for s in full), sum(s.broke for s in full)
    cells = []
    for patience in PATIENCE:
        saved = [search.saved(patience) for search in full]
        lost = sum(s.broke and count > 0 for s, count in zip(full, saved, strict=True))
        cells.append(f"{sum(saved) / total:.0%} saved, {lost} of {broken} lost")
    saved = total - sum(s.passes for s in shipped)
    lost = sum(a.broke and not b.broke for a, b in zip(full, shipped, strict=True))
    return [*cells, f"{saved / total:.0%} saved, {lost} of {broken} lost"]


def main() -> None:
    """Search, and try the rule."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--samples", type=int, default=200, help="the first N test images [200]")
    given = parser.parse_args()
    columns = [measure(name, given.samples) for name in given.models]
    lines = ["| patience | " + " | ".join(given.models) + " |", "|---|" + "---|" * len(columns)]
    for rule, *cells in zip([*map(str, PATIENCE), "`auto`"], *columns, strict=True):
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

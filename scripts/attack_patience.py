"""What a sample's patience would save `--attack auto`, and what it would lose.

    python scripts/attack_patience.py                     three models (some minutes)
    python scripts/attack_patience.py fmnist-cnn-ibp      these alone

Each sample is attacked alone, with its own margin at every pass written down, and rules are then
tried on what was written: with patience `k` and share `q` a search ends where its lowest margin
has not fallen by the share `q` within the last `k` gradients. That hangs on the sample's own search
alone, as it has to. Printed: gradients that are saved, of all, and breaks that are lost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from attacks.classifier import TiledClassifier, exact_passes
from attacks.losses import margin
from attacks.registry import kind_of
from attacks.suites import AUTO
from attacks.threat import ThreatModel
from robustbench_c import data, zoo

MODELS = ("fmnist-cnn-ibp", "fmnist-cnn-pgd", "fmnist-cnn-sparsevlr-95")
SAMPLES, EPS, SEED = 200, 0.1, 0
PATIENCE = (10, 20, 40, 80, 120, 160, 200)
FALL = (0.0, 0.01, 0.05)


class Watched(TiledClassifier):
    """A classifier of one sample at a time, which writes down its margin at every gradient."""

    def __init__(self, module: torch.nn.Module, y: Tensor) -> None:
        super().__init__(module, (1,))
        self.y, self.seen = y, list[float]()

    def logits_and_gradient(
        self, x: Tensor, loss: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """As any classifier."""
        logits, gradient = super().logits_and_gradient(x, loss)
        self.seen.append(float(margin(logits, self.y)))
        return logits, gradient


def searches(name: str) -> list[tuple[list[float], bool]]:
    """Margins met in the search of each sample that the model gets right; whether it broke."""
    module = zoo.load(name).module
    test = data.load("fashion-mnist-mini", split="test").head(SAMPLES)
    found, threat = [], ThreatModel.box("linf", EPS)
    with exact_passes():
        for row in range(len(test)):
            x, y, ids = test.x[row : row + 1], test.y[row : row + 1], test.ids[row : row + 1]
            classifier, broke = Watched(module, y), False
            if bool((classifier.logits(x).argmax(1) != y).any()):
                continue
            for _, config in AUTO.parts:
                result = kind_of(config).run(classifier, x, y, ids, threat, config, SEED)
                broke = broke or bool(result.found.any())
                if broke:
                    break
            found.append((classifier.seen, broke))
    return found


def end(seen: list[float], patience: int, fall: float) -> int:
    """Number of gradients after which a search of these margins ends."""
    lowest = list[float]()
    for step, value in enumerate(seen):
        lowest.append(min(value, lowest[-1] if lowest else value))
        if step >= patience and lowest[-1] >= (1 - fall) * lowest[step - patience]:
            return step + 1
    return len(seen)


def main() -> None:
    """Search, and try the rules."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    given = parser.parse_args().models
    kept = {name: searches(name) for name in given}
    lines = ["| patience | fall | " + " | ".join(given) + " |", "|---|---|" + "---|" * len(given)]
    for patience in PATIENCE:
        for fall in FALL:
            cells = []
            for found in kept.values():
                total = sum(len(seen) for seen, _ in found)
                ends = [end(seen, patience, fall) for seen, _ in found]
                lost = sum(b and e < len(s) for (s, b), e in zip(found, ends, strict=True))
                broken = sum(broke for _, broke in found)
                cells.append(f"{1 - sum(ends) / total:.0%} saved, {lost} of {broken} lost")
            lines.append(f"| {patience} | {fall:.0%} | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

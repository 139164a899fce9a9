"""PGD-20 on 200 images with plain and with compiled gradients, in turns: docs/attacks.md."""

from __future__ import annotations

import sys
import time

import torch

from attacks.classifier import exact_passes, prepare
from attacks.compiled import compiled
from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel
from robustbench_c import data, zoo


def main(model: str = "fmnist-cnn-pgd", rounds: int = 3) -> None:
    """Print the time of compiling, the shortest time of each, and how many verdicts differ."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = data.load("fashion-mnist-mini").head(200)
    x, y = samples.x.to(device), samples.y.to(device)
    threat = ThreatModel.box("linf", 0.1).to(device)
    with exact_passes():
        plain = prepare(zoo.load(model, str(device)).module, x)
        started = time.perf_counter()
        rivals = {"plain": plain, "compiled": compiled(plain, x)}
        sys.stdout.write(
            f"{model} on {device}: compiled in {time.perf_counter() - started:.1f} s" + "\n"
        )
        best, found = dict.fromkeys(rivals, float("inf")), {}
        for _ in range(rounds):
            for name, classifier in rivals.items():
                started = time.perf_counter()
                result = pgd(classifier, x, y, samples.ids, threat, PGDConfig(20, 1), 0)
                found[name] = result.found.cpu()
                best[name] = min(best[name], time.perf_counter() - started)
    for name, seconds in best.items():
        sys.stdout.write(f"{name}: {seconds:.2f} s, {int(found[name].sum())} broken" + "\n")
    sys.stdout.write(
        f"verdicts that differ: {int((found['plain'] != found['compiled']).sum())}" + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])

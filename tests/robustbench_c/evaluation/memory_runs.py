"""A run in a process of its own, which says how much memory it took: for tests of bounds on it."""

from __future__ import annotations

import json
import sys

import torch
from torch import nn

from attacks import memory
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from certify.methods import Budget
from robustbench_c.data import from_tensors
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.run import evaluate

SAMPLES = 256


def wide_cnn() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 784, 3)).eval()


def dense() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 3)).eval()


def main(what: str, out: str, max_memory: str) -> None:
    """Run and print the content hashes, the run's id and the peak."""
    torch.set_num_threads(1)
    if what == "attack":
        model, samples, eps = wide_cnn(), SAMPLES, 0.01
        options = {"attack": PGDConfig(steps=2, restarts=1)}
    else:
        model, samples, eps = dense(), 16, 0.006
        options = {"attack": "none", "certify": CertifyConfig(what, Budget(5, 20))}
    torch.manual_seed(1)
    x = torch.rand(samples, 1, 28, 28)
    with torch.no_grad():
        y = torch.cat([model(part).argmax(1) for part in x.split(16)])
    data = from_tensors(x, y, lower=0.0, upper=1.0)
    memory.reset_peak(torch.device("cpu"))
    start = memory.in_use(torch.device("cpu"))
    run = evaluate(
        model,
        data,
        threat=ThreatModel.box("linf", eps),
        device="cpu",
        out=out,
        diagnose=False,
        max_memory=int(max_memory) or None,
        **options,
    )
    told = {
        "peak": memory.peak(torch.device("cpu")),
        "start": start,
        "run": run.store.manifest.run_id,
        "tiles": run.store.manifest.tiles,
        "notices": run.store.manifest.notices,
        "hashes": {step.name: step.content_sha256 for step in run.summary.steps},
        "verdicts": run.verdicts["verdict"].value_counts(dropna=False).to_dict(),
    }
    print(json.dumps({k: str(v) if k == "verdicts" else v for k, v in told.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])

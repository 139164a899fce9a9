"""What only CUDA can show: memory that runs out, its name on record, a GPU that workers share."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

import robustbench_c
from attacks import memory
from attacks.classifier import TiledClassifier
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from leaderboards.store import RunStore

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


def test_the_record_names_the_device(net, images, tmp_path):
    threat = ThreatModel.box("linf", 0.02)
    options = {"attack": PGDConfig(3, 1), "diagnose": False, "out": tmp_path}
    run = robustbench_c.evaluate(deepcopy(net), images, threat=threat, device="cuda", **options)
    manifest = RunStore.open(run.folder).manifest
    assert manifest.device == "cuda"
    assert manifest.device_name == torch.cuda.get_device_name()
    clean = run.store.read_step("clean")
    broken = run.store.read_step("pgd").query("verdict == 'broken'")
    assert clean["margin"].notna().all()
    assert (broken["margin64"] < 0).all(), "re-checked in float64 on the device"


def test_memory_that_runs_out_halves_the_passes():
    wide = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    wide.eval().to("cuda")
    x, told = torch.rand(1024, 3, 64, 64, device="cuda"), []
    plain = TiledClassifier(wide, (32,)).logits(x)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.2e9 / total)  # a pass over 1024 takes over 2 GB
    try:
        classifier = TiledClassifier(wide, (32, 1024))
        with memory.telling(told.append):
            found = classifier.logits(x)
            logits, gradient = classifier.logits_and_gradient(x, lambda z: z.amax(1))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert told
    assert told[0].startswith("out of memory in a pass over 1024 samples: going on with")
    assert torch.allclose(found, plain, atol=1e-4)
    assert torch.allclose(logits, plain, atol=1e-4)
    assert bool(gradient.isfinite().all())


@pytest.mark.slow
def test_two_workers_on_one_gpu_make_the_record_of_one(tmp_path):
    options = ("--model", "fmnist-cnn-pgd", "--samples", "600", "--device", "cuda", "--json")
    sums = []
    for place, more in (("one", ()), ("two", ("--workers", "2"))):
        words = [sys.executable, "-m", "robustbench_c", "robust-eval", *options, *more]
        ended = subprocess.run(
            [*words, "--out", tmp_path / place], capture_output=True, text=True, check=True
        )
        found = json.loads(ended.stdout)
        sums.append((found["counts"], [step["content_sha256"] for step in found["steps"]]))
        assert "notice: worker" not in ended.stderr
    assert sums[0] == sums[1]

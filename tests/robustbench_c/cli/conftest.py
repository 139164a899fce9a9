from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

FACTORIES = """
import torch
from torch import nn

class Means(nn.Module):
    '''Class 1 where the mean of the input is above one half.'''
    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes
        self.scale = nn.Parameter(torch.tensor(8.0))
    def forward(self, x):
        logit = self.scale * (x.flatten(1).mean(1) - 0.5)
        others = [logit * 0 - 9.0] * (self.classes - 2)
        return torch.stack([-logit, logit, *others], 1)

def means(classes=2):
    return Means(classes)

class Nan(Means):
    def forward(self, x):
        return super().forward(x) * torch.where(x.flatten(1)[:, :1] > 0.9, torch.nan, 1.0)

class Noisy(Means):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)

class Quantised(Means):
    '''Its activations have few levels: no gradient gets through.'''
    def forward(self, x):
        hidden = x.flatten(2).mean(2)
        return super().forward(torch.round(20 * hidden) / 20 + 0 * hidden)

class Saturated(Means):
    '''Logits so large that the true class has probability 1.'''
    def forward(self, x):
        return 1e5 * super().forward(x)

class Late(Means):
    '''Random from the fifteenth pass on: the checks before a run do not see it.'''
    passes = 0
    def forward(self, x):
        self.passes += 1
        noise = 1e-4 * torch.randn(len(x), 2) if self.passes > 14 else 0
        return super().forward(x) + noise

class Constant(Means):
    def forward(self, x):
        return self.scale * torch.ones(len(x), 2)

class Raises(Means):
    def forward(self, x):
        raise ValueError("expected something\\nelse")

class Flat(Means):
    def forward(self, x):
        return super().forward(x)[:, 0]

def not_finite():
    model = Means()
    model.scale.data.fill_(torch.nan)
    return model

def fails():
    raise OSError("no network")

def number():
    return 3
"""


DIAGNOSE = "--diagnose"
"""Asks the fixture `robust_eval` for what is the default of the command."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a console script in this process, by its own entry point."""

    def run(script: str, *arguments: object) -> Ended:
        module = {"robust-eval": "evaluate"}.get(script, script.removeprefix("robust-"))
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            import_module(f"robustbench_c.cli.{module}").main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def robust_eval(command, tmp_path, monkeypatch):
    """Run robust-eval with a small attack; records go to `tmp_path / "runs"`.

    Without diagnostics, for speed, where `--diagnose` is not among the arguments.
    """
    monkeypatch.setattr("robustbench_c.evaluation.attacking.contact_sheet", lambda *_: None)

    def run(*arguments: object) -> Ended:
        small = ["--device", "cpu", "--out", tmp_path / "runs"]
        attacks = ("--attack", "none") not in itertools.pairwise(arguments)
        if attacks and "--steps" not in arguments:
            small += ["--steps", 4, "--restarts", 1]
        if DIAGNOSE not in arguments and "--explain" not in arguments:
            small += ["--no-diagnose"]
        return command("robust-eval", *small, *(a for a in arguments if a != DIAGNOSE))

    return run


@pytest.fixture
def robust_runs(command):
    return lambda *arguments: command("robust-runs", *arguments)


@pytest.fixture
def factories(tmp_path) -> str:
    """Path of a file of model factories, made for `own`."""
    path = tmp_path / "models.py"
    path.write_text(FACTORIES)
    return str(path)


@pytest.fixture
def own(tmp_path) -> dict[str, Path]:
    """The same 24 little images, some near the border, as .npz, .csv and folder."""
    random = np.random.RandomState(0)
    levels = np.linspace(0.3, 0.7, 24)
    noise = random.uniform(-0.2, 0.2, (24, 1, 4, 4))
    noise -= noise.mean((1, 2, 3), keepdims=True)
    x = np.round((levels[:, None, None, None] + noise) * 255).astype(np.uint8)
    x[5, 0, 0, 0] = 250  # the first pixel of no other is that light
    y = (x.reshape(24, -1).mean(1) > 127.5).astype(np.int64)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    header = ",".join(f"f{i}" for i in range(16)) + ",label\n"
    rows = [",".join(f"{v / 255!r}" for v in map(float, a.flat)) for a in x]
    lines = "".join(f"{row},{label}\n" for row, label in zip(rows, y, strict=True))
    (tmp_path / "own.csv").write_text(header + lines)
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = tmp_path / "images" / ("dark", "light")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / f"{i:03d}.png")
    return {
        "npz": tmp_path / "own.npz",
        "csv": tmp_path / "own.csv",
        "folder": tmp_path / "images",
    }


@pytest.fixture
def weights():
    """The state of the shipped standard model, to be spoilt."""
    from robustbench_c import zoo

    module = zoo.load("fmnist-cnn-standard").module
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.fixture
def checkpoint(tmp_path):
    def save(content: object, name: str = "model.pt") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save

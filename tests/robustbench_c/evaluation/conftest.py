from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import robustbench_c
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from robustbench_c.evaluation import Run, attacking, sharing


@dataclass(frozen=True)
class Problem:
    """A small model with its data, and how to evaluate it."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float = 0.05

    def threat(self, eps: float | None = None) -> ThreatModel:
        return ThreatModel.box("linf", self.eps if eps is None else eps)

    def evaluate(self, out, **options) -> Run:
        eps = options.pop("eps", None)
        # one restart for each wrong class: exact on a linear model
        exact = PGDConfig(steps=10, restarts=2, loss="margin", goal="multi-targeted")
        options = {"attack": exact, "device": "cpu", "diagnose": False, **options}
        return robustbench_c.evaluate(
            self.model, self.x, self.y, self.threat(eps), out=out, **options
        )

    def margins(self, eps: float) -> Tensor:
        """The smallest margin within eps of a linear model, away from the box, exactly."""
        weight, bias = self.model.weight.double(), self.model.bias.double()
        gaps = weight[self.y][:, None] - weight[None]
        value = torch.einsum("nkd,nd->nk", gaps, self.x.double()) + (bias[self.y][:, None] - bias)
        worst = value - eps * gaps.abs().sum(2)
        return worst.scatter(1, self.y[:, None], torch.inf).amin(1)

    def with_model(self, model: nn.Module) -> Problem:
        return replace(self, model=model)


@pytest.fixture
def linear() -> Problem:
    """Three classes, 12 features far from the box, labels mostly those predicted."""
    torch.manual_seed(3)
    model = nn.Linear(12, 3).eval()
    x = 0.3 + 0.4 * torch.rand(60, 12)
    with torch.no_grad():
        model.bias -= model(x).mean(0)  # every class is predicted somewhere
        y = model(x).argmax(1)
    y[:5] = (y[:5] + 1) % 3
    return Problem(model, x, y)


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    monkeypatch.setattr(attacking, "contact_sheet", lambda *_: None)
    monkeypatch.setattr("robustbench_c.evaluation.run.plot_radii", lambda *_: None)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(sharing, "MOST", 7)


@pytest.fixture
def hashes():
    def of(run: Run) -> dict[str, str]:
        return {step.name: step.content_sha256 for step in run.summary.steps}

    return of


@pytest.fixture
def rows():
    def of(run: Run, step: str = "pgd") -> pd.DataFrame:
        return run.store.read_step(step).set_index("sample_id").drop(columns="seconds")

    return of

"""What runs on the CPU runs on another device: a pretended one, and CUDA where there is one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module

import pandas as pd
import pytest
import torch
from pretend_device import pretend_cuda
from torch import Tensor, nn

from attacks.classifier import CPU_TILES
from robustbench_c.data import Dataset, from_tensors
from robustbench_c.evaluation import Run, attacking

_TILED = (
    *("attacks.classifier", "attacks.explanation_attacks", "attacks.explanation_driver"),
    "robustbench_c.evaluation.explained_task",
)


@dataclass(frozen=True)
class Device:
    """A device that is not the CPU.

    Attributes:
        name: Of the device.
        exact: Whether it computes what the CPU does, bit for bit.
        there: Inside, it is there.
    """

    name: str
    exact: bool
    there: Callable[[], AbstractContextManager[object]]


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch) -> Device:
    """A device with the CPU's tiles: small, and bits that can be compared."""
    for module in _TILED:
        monkeypatch.setattr(import_module(module), "CUDA_TILES", CPU_TILES)
    if request.param == "pretended":
        return Device("cuda", True, pretend_cuda)
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return Device("cuda", False, nullcontext)


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    monkeypatch.setattr(attacking, "contact_sheet", lambda *_: None)
    monkeypatch.setattr("robustbench_c.evaluation.run.plot_radii", lambda *_: None)
    for module in ("loop", "federated"):
        monkeypatch.setattr(f"robustbench_c.training.{module}.draw", lambda *_: None)


def _images(n: int, side: int) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2


@pytest.fixture(scope="session")
def net() -> nn.Module:
    """Four classes, a convolution and two ReLUs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(
            nn.Conv2d(1, 4, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 10),
            nn.ReLU(),
            nn.Linear(10, 4),
        ).eval()


@pytest.fixture
def images(net) -> Dataset:
    """18 little images, of which two are misclassified."""
    x = _images(18, 8)
    with torch.no_grad():
        net[-1].bias -= net(x).mean(0)
        y = net(x).argmax(1)
    y[:2] = (y[:2] + 1) % 4
    return from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))


@pytest.fixture
def same(device) -> Callable[[Run, Run], None]:
    """Asserts that two runs found the same: every cell, or the verdicts where devices round."""

    def check(one: Run, other: Run) -> None:
        for step in one.store.steps:
            a, b = (run.store.read_step(step).set_index("sample_id") for run in (one, other))
            if device.exact:
                pd.testing.assert_frame_equal(
                    a.drop(columns="seconds"), b.drop(columns="seconds"), check_dtype=False
                )
            else:
                assert a["verdict"].equals(b["verdict"]), step

    return check

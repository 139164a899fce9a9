from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from certify import lirpa
from certify.specification import margins

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed() -> None:
    if (reason := lirpa.notice()) is not None:
        pytest.skip(reason)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(64, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    )


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN"])
def test_bounds_contain_sampled_outputs(method: lirpa.Method) -> None:
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, 1, 8, 8, generator=generator)
    lower, upper = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    low, high = lirpa.bounds(net, lower, upper, method)
    assert low.shape == high.shape == (3, 3)
    assert net.training, "the caller's model stays as it was"
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.eval()
    share = torch.rand(200, *x.shape, generator=generator)
    corners = share.round()  # half of the points are corners of the box
    points = lower + torch.cat([share, corners]) * (upper - lower)
    with torch.no_grad():
        outputs = net(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    assert (low - 1e-5 <= outputs).all()
    assert (outputs <= high + 1e-5).all()
    assert (high - low < 30 * (outputs.amax(0) - outputs.amin(0))).all(), "bounds say something"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN"])
def test_bounds_of_margins_are_tighter_than_margins_of_bounds(method: lirpa.Method) -> None:
    net = small_net().eval()
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(3, 1, 8, 8, generator=generator)
    lower, upper = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    labels = torch.tensor([0, 2, 1])
    coefficients = margins(labels, 3).coefficients
    low, high = lirpa.bounds(net, lower, upper, method, coefficients)
    assert low.shape == high.shape == (3, 2)
    points = lower + torch.rand(200, *x.shape, generator=generator).round() * (upper - lower)
    with torch.no_grad():
        outputs = net(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    attained = torch.einsum("nrk,pnk->pnr", coefficients, outputs)
    assert (low - 1e-5 <= attained).all()
    assert (attained <= high + 1e-5).all()
    plain_low, plain_high = lirpa.bounds(net, lower, upper, method)
    crude = torch.einsum("nrk,nk->nr", coefficients.clamp_min(0), plain_low)
    crude += torch.einsum("nrk,nk->nr", coefficients.clamp_max(0), plain_high)
    assert (low >= crude - 1e-5).all()
    assert (low > crude + 1e-3).any()


@pytest.mark.usefixtures("installed")
def test_crown_is_tighter_than_ibp_and_a_point_is_the_function() -> None:
    net = small_net().eval()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    widths = [
        (high - low).mean()
        for low, high in (lirpa.bounds(net, x - 0.05, x + 0.05, m) for m in ("IBP", "CROWN"))
    ]
    assert widths[1] < 0.5 * widths[0]
    low, high = lirpa.bounds(net, x, x, "CROWN")
    with torch.no_grad():
        torch.testing.assert_close(low, net(x), atol=1e-5, rtol=0)
        torch.testing.assert_close(high, net(x), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("installed")
def test_the_mended_module_lists_its_parameters() -> None:
    module = lirpa.load()
    assert module is not None
    bounded = module.BoundedModule(nn.Sequential(nn.Linear(2, 3)).eval(), torch.zeros(1, 2))
    assert sorted(p.numel() for p in bounded.parameters()) == [3, 6]


def test_absent_is_a_notice_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lirpa._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        assert lirpa.load() is None
        notice = lirpa.notice() or ""
        with pytest.raises(RuntimeError, match="auto_LiRPA is absent"):
            lirpa.bounds(small_net(), torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), "IBP")
    lirpa._load.cache_clear()
    assert notice.startswith("auto_LiRPA is absent")
    assert "make lirpa" in notice
    assert "\n" not in notice


def test_importing_the_adapter_mends_nothing_and_loading_leaves_logs_and_warnings_alone() -> None:
    code = (
        "import logging, sys, warnings, torch\n"
        "from certify import lirpa\n"
        "print('numpy.lib.arraysetops' in sys.modules, 'auto_LiRPA' in sys.modules)\n"
        "before = warnings.filters[:]; lirpa.load()\n"
        "print(warnings.filters == before, logging.root.handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["False False", "True []"]


@pytest.mark.parametrize(
    ("status", "says"), [(0, "auto_LiRPA 0.3 is installed"), (1, "notice: auto_LiRPA could not")]
)
def test_the_installer_never_fails(tmp_path: Path, status: int, says: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\nexit {status}\n')
    python.chmod(0o755)
    script = ROOT / "scripts" / "install_lirpa.sh"
    done = subprocess.run([script, python], capture_output=True, text=True)
    assert done.returncode == 0
    assert says in done.stdout + done.stderr
    calls = (tmp_path / "calls").read_text()
    assert all("pip install" in line for line in calls.splitlines())
    assert ("--no-deps auto_LiRPA==0.3" in calls) == (status == 0)

"""Every operation is bounded on another device, soundly and as on the CPU."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks.balls import Ball
from attacks.threat import ThreatModel
from certify import branch
from certify.alpha import refine, start
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.interval import Interval
from certify.leaf import solve
from certify.relus import Relus
from certify.specification import Specification, margins
from certify.trace import trace_model

sys.path.append(str(Path(__file__).parents[1] / "certify"))

from bound_nets import ALONE, alone  # the nets of the bounds' own tests

SHORT = {"ReLU", "MaxPool2d", "sqrt", "reversed"}
_CPU_CONSTANTS = {"gather", "index_select"}
"""Forwards that make tensors on the CPU whatever the input is: such models are for the CPU."""
_NOT_PRETENDED = {"copy", "wider"}
"""aten::copy has no derivative under a dispatch mode; a tensor new in a trace cannot be tagged."""


def bounds(model: nn.Module, x: Tensor, eps: float) -> Tensor:
    """Lower bounds of the outputs and of their negatives by CROWN, on the device of x."""
    program = bind_model(model, trace_model(model, x))
    with torch.no_grad():
        known = analyse(program, InputSet(Interval(x - eps, x + eps)), tighten=True)
        unit = torch.eye(model(x.clone())[0].numel(), device=x.device)
        rows = torch.cat([unit, -unit]).expand(len(x), -1, -1)
        asked = Specification(rows, rows.new_zeros(rows.shape[:2]), tuple(range(rows.shape[1])))
        return output_bounds(known, asked)


@pytest.mark.parametrize(
    ("name", "rank"),
    [case if case[0] in SHORT else pytest.param(*case, marks=pytest.mark.slow) for case in ALONE],
)
def test_each_operation(device, name, rank):
    if name in _CPU_CONSTANTS or (device.exact and name in _NOT_PRETENDED):
        pytest.skip("a model for the CPU, or more than the pretended device can do")
    case = alone(name, rank)
    here = bounds(deepcopy(case.model), case.x, case.eps)
    with device.there():
        model, x = case.model.to(device.name), case.x.to(device.name)
        found = bounds(model, x, case.eps)
        assert found.is_cuda
        found = found.cpu()
    exact = torch.equal(found, here)
    assert exact or not device.exact or (found - here).abs().max() < 1e-6
    if not exact:
        assert torch.allclose(found, here, atol=1e-4, rtol=1e-4)
        values = case.model.double()(case.x.double()).flatten(1)
        assert bool((found <= torch.cat([values, -values], 1).cpu() + 1e-12).all())


def test_the_linear_program_of_a_leaf(device):
    """It is solved on the CPU; its bound is of the device again, and no lower."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].bias += 5  # no ReLU is in doubt

    def leaf(model: nn.Module, x: Tensor, label: Tensor, threat: ThreatModel):
        program = bind_model(model, trace_model(model, x))
        inputs, ball = InputSet.around(x, threat), Ball.around(threat, x)
        asked = margins(label, 2, x.dtype)
        engine = branch._Engine(program, inputs, asked, model, ball, (0, [0]), [])
        with torch.no_grad():
            relus = Relus.of(refine(analyse(program, inputs, tighten=True), steps=0))
            root = branch._Root({0: 0}, relus)
            first = torch.zeros(1, dtype=torch.int64, device=x.device)
            goal = engine._goal(root, [0], first)
            point = start(relus, first, engine.most)
            return solve(relus.whole(first), goal, point)

    x, label, threat = torch.rand(1, 2), torch.tensor([0]), ThreatModel.box("linf", 0.1)
    here = leaf(deepcopy(net), x, label, threat)
    with device.there():
        name = device.name
        there = leaf(net.to(name), x.to(name), label.to(name), threat.to(name))
        assert there.point.lower.is_cuda
        assert there.minimiser.is_cuda
        assert float(there.point.lower) == pytest.approx(float(here.point.lower), abs=1e-5)
    assert there.minimum == pytest.approx(here.minimum, abs=1e-6)

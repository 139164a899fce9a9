"""Interval bounds that write over what is no longer needed are those that do not."""

from __future__ import annotations

import pytest
import torch
from bound_nets import Fn
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.specification import margins
from certify.trace import trace_model


def in_a_row(x: Tensor, first: nn.Module, second: nn.Module, last: nn.Module) -> Tensor:
    return last(F.relu(second(F.relu(first(x)))).flatten(1))


def with_a_view(x: Tensor, first: nn.Module, second: nn.Module, last: nn.Module) -> Tensor:
    h = first(x)
    flat = h.flatten(1)  # the same memory, used after h itself is
    return last(F.relu(second(F.relu(h))).flatten(1)) + last(F.relu(flat))


def with_a_shortcut(x: Tensor, first: nn.Module, second: nn.Module, last: nn.Module) -> Tensor:
    h = F.relu(first(x))
    late = F.relu(second(h)) + h
    return last(late.flatten(1)) - last(F.relu(h).flatten(1))


def of_the_input(x: Tensor, first: nn.Module, second: nn.Module, last: nn.Module) -> Tensor:
    h = F.relu(x.reshape(x.shape))
    return last(F.relu(second(F.relu(first(h) + x))).flatten(1))


@pytest.mark.parametrize("forward", [in_a_row, with_a_view, with_a_shortcut, of_the_input])
def test_bounds_do_not_depend_on_reuse(forward):
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Linear(32, 3)
    model = Fn(forward, *layers).eval().requires_grad_(False)
    x = torch.rand(5, 2, 4, 4)
    program = bind_model(model, trace_model(model, x[:2]))
    inputs = InputSet.around(x, ThreatModel.box("linf", 0.1))
    before = inputs.box.lower.clone(), inputs.box.upper.clone()
    rows = margins(torch.tensor([0, 1, 2, 0, 1]), 3)

    def bounds() -> Tensor:
        return output_bounds(analyse(program, inputs, tighten=False, lines=False), rows)

    with torch.enable_grad():  # nothing is reused
        wanted = bounds()
    with torch.no_grad():
        assert torch.equal(bounds(), wanted)
        assert torch.equal(bounds(), wanted)
    assert torch.equal(inputs.box.lower, before[0])
    assert torch.equal(inputs.box.upper, before[1])

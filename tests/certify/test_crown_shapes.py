"""Constants and factors along odd dimensions, and rows merged into the batch: where shapes mislead.

Sizes are equal on purpose: a vector taken along the wrong dimension fits, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.specification import Specification
from certify.trace import trace_model


class Between(nn.Module):
    """A constant, used between two layers by a function."""

    def __init__(self, shape: tuple[int, ...], use: Callable[[Between, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
        self.constant = nn.Parameter(torch.randn(shape) * 3)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x).flatten(1)


def _added(model: Between, x: Tensor) -> Tensor:
    return model.last(torch.relu(model.first(x) + model.constant))


def _five_dimensions(model: Between, x: Tensor) -> Tensor:
    return torch.relu(x.unflatten(3, (3, -1)).permute(0, 3, 1, 2, 4) + model.constant)


CASES: dict[str, tuple[tuple[int, ...], Callable[[Between, Tensor], Tensor], int]] = {
    "a number for each row of the image": ((1, 3, 1), _added, 3),
    "a number for each row of one image": ((1, 1, 3, 1), _added, 3),
    "a number for each channel": ((3, 1, 1), _added, 3),
    "a channel that is not the first dimension": ((3, 1, 1), _five_dimensions, 3),
}


def check(model: nn.Module, size: int, eps: float = 0.02) -> None:
    """No corner of the box, nor any point of it, is below the bounds of each output."""
    torch.manual_seed(1)
    model.eval().requires_grad_(False)
    x = torch.rand(2, 3, size, size)
    program = bind_model(model, trace_model(model, x))
    inputs = InputSet.around(x, ThreatModel.box("linf", eps))
    outputs = len(model(x)[0])
    rows = torch.cat([torch.eye(outputs), -torch.eye(outputs)]).expand(2, -1, -1)
    rows = Specification(rows, rows.new_zeros(rows.shape[:2]), tuple(range(2 * outputs)))
    with torch.no_grad():
        lower = output_bounds(analyse(program, inputs, tighten=True), rows)
    low, high = inputs.box.lower, inputs.box.upper
    for share in (torch.zeros(1), torch.rand(500, *x.shape), torch.ones(1)):
        points = low + (high - low) * share.view(len(share), *share.shape[1:] or (1,) * 4)
        points = points.flatten(0, 1) if points.dim() == 5 else points
        y = model(points.reshape(-1, *x.shape[1:])).double().view(-1, 2, outputs)
        assert bool((torch.cat([y, -y], 2) >= lower).all())
    assert bool((lower > -10).all())


@pytest.mark.parametrize("name", CASES)
def test_constants_along_any_dimension(name: str) -> None:
    torch.manual_seed(0)
    shape, use, size = CASES[name]
    check(Between(shape, use), size)

"""Every operation is bounded on another device, soundly and as on the CPU."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.methods import Budget, Certifier
from certify.result import Outcome
from certify.specification import Specification
from certify.trace import trace_model

sys.path.append(str(Path(__file__).parents[1] / "certify"))

from bound_nets import ALONE, alone  # noqa: E402

SHORT = [("ReLU", 1), ("gather", 1), ("Conv2d", 3), ("MaxPool2d", 3), ("softmax", 1)]


def bounds(model: nn.Module, x: torch.Tensor, eps: float) -> torch.Tensor:
    """Lower bounds of the outputs and of their negatives by CROWN, on the device of x."""
    program = bind_model(model, trace_model(model, x))
    shape = program.shape(program.output)
    unit = torch.eye(shape.numel() if hasattr(shape, "numel") else _size(shape)).to(x)
    rows = torch.cat([unit, -unit]).expand(len(x), -1, -1)
    asked = Specification(rows, rows.new_zeros(rows.shape[:2]), tuple(range(rows.shape[1])))
    with torch.no_grad():
        known = analyse(program, InputSet.around(x, ThreatModel.box("linf", eps, *_ends(x))), tighten=True)
        return output_bounds(known, asked)

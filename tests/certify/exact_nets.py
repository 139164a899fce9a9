"""Small random ReLU nets with two free inputs, and the exact minimum of what they have to satisfy.

The box of the free inputs is a polygon. Each ReLU cuts polygons where its input changes sign, and
on what is left everything is affine: values are carried along at corners, in float64. Neither an LP
nor any bound is involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.balls import Ball
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.bind import bind_model
from certify.branch import branch_and_bound
from certify.result import Certificates
from certify.search import Budget
from certify.specification import Specification, margins
from certify.trace import trace_model


class Net(nn.Module):
    """Layers in a row; "save" keeps a value, "add" adds the kept one."""

    def __init__(self, steps: list[nn.Module | str], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.steps, self.shape = steps, shape
        self.layers = nn.ModuleList([s for s in steps if isinstance(s, nn.Module)])

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for step in self.steps:
            if step == "save":
                kept = x
            elif step == "add":
                x = x + kept
            else:
                x = step(x)
        return x


def random_net(seed: int) -> Net:
    """A net of 4 to 12 ReLUs: perceptron, convolution or residual."""
    torch.manual_seed(seed)
    kind = seed % 5
    steps: list[nn.Module | str]
    if kind < 3:
        a, b = 4 + seed % 3, 5 + seed % 2
        steps = [nn.Linear(2, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 3)]
        shape: tuple[int, ...] = (2,)
    elif kind == 3:
        steps = [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4), nn.ReLU()]
        steps.append(nn.Linear(4, 3))
        shape = (1, 3, 3)
    else:
        steps = [nn.Linear(2, 4), nn.ReLU(), "save", nn.Linear(4, 4), nn.ReLU(), "add"]
        steps.extend([nn.ReLU(), nn.Linear(4, 3)])
        shape = (2,)
    net = Net(steps, shape).eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False).mul_(2.0)
    return net


@dataclass
class Case:
    """A net with a few samples, each in a ball of its own net."""

    net: Net
    x: Tensor
    threat: ThreatModel
    specification: Specification


def random_case(seed: int, *, choices: bool = False, samples: int = 3) -> Case:
    """Samples that only just satisfy, or violate, their specification.

    Rows are shifted so that the exact minimum lies a little to one side of 0: bounds without splits
    decide few of them. With `choices`, there is one clause of two rows.
    """
    net = random_net(seed)
    x = 0.3 + 0.4 * torch.rand(samples, *net.shape)
    fixed = torch.ones(net.shape, dtype=torch.bool).flatten()
    fixed[:2] = False
    eps = 0.3 + 0.3 * float(torch.rand(()))
    threat = ThreatModel.box("linf", eps, immutable=fixed.view(net.shape))
    plain = margins(net(x).argmax(1), 3)
    case = Case(net, x, threat, plain)
    if choices:
        case.specification = Specification(plain.coefficients, plain.offset, (0, 0))
    least = torch.tensor([exact_minimum(case, i) for i in range(samples)])
    away = 10 ** (-3 + 2 * torch.rand(samples)) * (torch.randint(2, (samples,)) * 2 - 1)
    shift = (away - least)[:, None].expand(-1, 2)
    case.specification = Specification(plain.coefficients, shift, case.specification.clause)
    return case


def exact_minimum(case: Case, sample: int) -> float:
    """The least value of the least clause, where a clause is the largest of its rows."""
    inputs = InputSet.around(case.x[sample : sample + 1], case.threat)
    low, high = (end[0].double().flatten() for end in (inputs.box.lower, inputs.box.upper))
    corners = low.repeat(4, 1)
    corners[:, :2] = torch.stack(
        [torch.where(torch.tensor(pick), high[:2], low[:2]) for pick in _SQUARE]
    )
    net = case.net.double()
    h = corners.view(4, *net.shape)
    pieces = [(h, h)]
    for step in net.steps:
        if isinstance(step, nn.ReLU):
            pieces = [cut for piece in pieces for cut in _all_cuts(*piece)]
            pieces = [(h * (h.sum(0) > 0).to(h.dtype), kept) for h, kept in pieces]
        elif step == "save":
            pieces = [(h, h) for h, _ in pieces]
        elif step == "add":
            pieces = [(h + kept, kept) for h, kept in pieces]
        else:
            pieces = [(step(h), kept) for h, kept in pieces]
    net.float()
    spec = case.specification
    rows, offset = spec.coefficients[sample].double(), spec.offset[sample].double()
    least = float("inf")
    for clause in range(spec.clause[-1] + 1):
        which = [i for i, c in enumerate(spec.clause) if c == clause]
        for h, _ in pieces:
            values = h @ rows[which].T + offset[which]
            halves = [values]
            if len(which) == 2:  # cut where the larger row changes
                halves = [v for v, _ in _cut(values, values, values[:, 0] - values[:, 1])]
            least = min(least, *(float(v.amax(1).amin()) for v in halves))
    return least


_SQUARE = [(False, False), (True, False), (True, True), (False, True)]


def _all_cuts(h: Tensor, kept: Tensor) -> list[tuple[Tensor, Tensor]]:
    pieces = [(h, kept)]
    for j in range(h[0].numel()):
        pieces = [cut for a, b in pieces for cut in _cut(a, b, a.flatten(1)[:, j])]
    return pieces


def _cut(h: Tensor, kept: Tensor, level: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Cut a polygon along `level = 0`."""
    if bool((level >= 0).all()) or bool((level <= 0).all()):
        return [(h, kept)]
    found = []
    for side in (level, -level):
        one, two = [], []
        for i in range(len(side)):
            j = (i + 1) % len(side)
            if side[i] >= 0:
                one.append(h[i])
                two.append(kept[i])
            if (side[i] > 0) != (side[j] > 0) and side[i] != side[j]:
                t = side[i] / (side[i] - side[j])
                one.append(h[i] + t * (h[j] - h[i]))
                two.append(kept[i] + t * (kept[j] - kept[i]))
        found.append((torch.stack(one), torch.stack(two)))
    return found


def settle(case: Case, samples: Tensor | None = None, budget: int = 2000) -> Certificates:
    """Run branch and bound on some of a case's samples."""
    index = torch.arange(len(case.x)) if samples is None else samples
    x = case.x[index]
    spec = case.specification
    chosen = Specification(spec.coefficients[index], spec.offset[index], spec.clause)
    program = bind_model(case.net, trace_model(case.net, x))
    return branch_and_bound(
        program,
        InputSet.around(x, case.threat),
        chosen,
        case.net,
        Ball.around(case.threat, x),
        Budget(budget),
        ids=index.tolist(),
    )

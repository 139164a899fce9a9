"""How much wider boxes are than what gradients take: exact regions of a small net, and samples."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from attacks.explanations import Explanation
from attacks.threat import ThreatModel
from certify.explaining import METHODS, ExplanationCertifier

FEATURES, CLASSES, GRID = 2, 3, 201


def mlp(seed: int) -> nn.Module:
    """Three hidden layers of 20 on two features, with weights of a size that bends."""
    torch.manual_seed(seed)
    widths = [FEATURES, 20, 20, 20]
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(20, CLASSES))


def regions(model: nn.Module, low: Tensor, high: Tensor) -> Tensor:
    """Gradients of all logits in the linear regions that a box of two features has, float64.

    Halves triangles until no unit changes its sign at the corners of any: a unit is linear on what
    lies between if those before it are, so then a triangle is within one region.

    Returns:
        (regions, classes, features); regions smaller than a triangle of the last round are left
        out, so that this is a set of gradients that are all taken.
    """
    model = copy.deepcopy(model).double()
    a, b = low.double(), high.double()
    corner = [a, torch.stack([b[0], a[1]]), b, torch.stack([a[0], b[1]])]
    open_ = torch.stack([torch.stack([corner[0], corner[1], corner[2]]),
                         torch.stack([corner[0], corner[3], corner[2]])])  # fmt: skip
    whole = []
    for _ in range(24):
        signs = torch.stack(patterns(model, open_.flatten(0, 1))).view(-1, len(open_), 3)
        same = (signs == signs[..., :1]).all(2).all(0)
        whole.append(open_[same].mean(1))
        rest = open_[~same]
        if len(rest) == 0 or len(rest) > 400_000:
            break
        p, q, r = rest.unbind(1)  # the side from p to r is the longest: it is halved
        middle = (p + r) / 2
        open_ = torch.cat([torch.stack([p, middle, q], 1), torch.stack([q, middle, r], 1)])
    return gradients(model, torch.cat(whole))


def patterns(model: nn.Module, points: Tensor) -> list[Tensor]:
    """Which units of which layer are on, each (units, points)."""
    found, h = [], points
    for layer in model:  # type: ignore[attr-defined]
        if isinstance(layer, nn.ReLU):
            found.extend((h > 0).mT.unbind())
        h = layer(h)
    return found


def gradients(model: nn.Module, points: Tensor) -> Tensor:
    """Of all logits, by masks and products alone, (points, classes, features)."""
    j = torch.eye(FEATURES).to(points).expand(len(points), -1, -1)
    h = points
    for layer in model:  # type: ignore[attr-defined]
        if isinstance(layer, nn.Linear):
            h, j = layer(h), layer.weight @ j
        else:
            j, h = j * (h > 0)[..., None], h.relu()
    return j.detach()


def gaps(seed: int, eps: float, x: Tensor) -> dict[str, float]:
    """Width of each method's box over that of what is taken; the latter must lie inside."""
    model = mlp(seed)
    threat = ThreatModel.box("linf", eps)
    low, high = (end[0] for end in threat.bounds(x))
    taken = regions(model, low, high)
    axes = [torch.linspace(float(a), float(b), GRID) for a, b in zip(low, high, strict=True)]
    dense = gradients(copy.deepcopy(model).double(), torch.cartesian_prod(*axes).double())
    least, most = taken.amin(0), taken.amax(0)
    # a region may fall between the points of the grid; none that they hit may be left out
    assert bool((dense.amin(0) >= least - 1e-12).all())
    assert bool((dense.amax(0) <= most + 1e-12).all())
    certifier = ExplanationCertifier(model, x, Explanation())
    found = {}
    for method in METHODS:
        box = certifier.box(x.expand(CLASSES, -1), torch.eye(CLASSES), threat, None, method)
        assert bool((box.lower <= least).all()), f"{method}: a gradient lies outside"
        assert bool((box.upper >= most).all()), f"{method}: a gradient lies outside"
        found[method] = float((box.upper - box.lower).mean() / (most - least).mean())
    return found | {"width": float((most - least).mean())}


@pytest.mark.parametrize("eps", [0.01, pytest.param(0.05, marks=pytest.mark.slow)])
def test_the_true_gap(eps: float, capsys: pytest.CaptureFixture[str]) -> None:
    nets, x = range(4), torch.tensor([[0.5, 0.4]])
    found = [gaps(seed, eps, x) for seed in nets]
    mean = {name: sum(f[name] for f in found) / len(found) for name in found[0]}
    with capsys.disabled():
        print(f"\n3 x 20 ReLU, eps {eps}: mean width of the true range {mean.pop('width'):.4f}; ")
        print("width of box / true: " + ", ".join(f"{m} {v:.2f}" for m, v in mean.items()))
    assert 1 <= mean["linear"] <= mean["crown-interval"] <= mean["interval"] * 1.001

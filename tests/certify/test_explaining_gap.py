"""How far boxes of explanations are from the truth, on perceptrons of two inputs, 3 x 20 ReLUs."""

from __future__ import annotations

import pytest
import torch
from exact_nets import _SQUARE, _all_cuts
from explanation_nets import CLASSES, SHAPE, net
from torch import Tensor, nn

from attacks.explanations import Explanation
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.explaining import METHODS, ExplanationCertifier
from certify.interval import Interval


def exact_box(model: nn.Sequential, box: Interval) -> Interval:
    """The exact box of each logit's gradient, (logits, 2): over all regions that the box meets."""
    model = model.double()
    low, high = box.lower[0].double(), box.upper[0].double()
    x = torch.stack([torch.where(torch.tensor(pick), high, low) for pick in _SQUARE])
    pieces = [(x, x)]
    for step in model:
        if isinstance(step, nn.ReLU):
            pieces = [cut for piece in pieces for cut in _all_cuts(*piece)]
            pieces = [(h * (h.sum(0) > 0), at) for h, at in pieces]
        else:
            pieces = [(step(h), at) for h, at in pieces]
    found = []
    for _, at in pieces:
        gradient = torch.autograd.functional.jacobian(model, at.mean(0, keepdim=True))
        found.append(gradient[0, :, 0])
    model.float()
    each = torch.stack(found)
    return Interval(each.amin(0), each.amax(0))


@pytest.mark.parametrize("eps", [0.01, 0.05])
def test_exact_boxes_of_a_small_perceptron(eps: float, capsys: pytest.CaptureFixture[str]) -> None:
    """They lie inside, and the order of the methods is the expected one."""
    widths: dict[str, list[Tensor]] = {name: [] for name in ("exact", *METHODS)}
    for seed in range(2):
        torch.manual_seed(seed)
        steps: list[nn.Module] = [nn.Linear(2, 20), nn.ReLU()]
        for _ in range(2):
            steps += [nn.Linear(20, 20), nn.ReLU()]
        model = nn.Sequential(*steps, nn.Linear(20, 3)).eval().requires_grad_(False)
        x, threat = torch.rand(1, 2), ThreatModel.box("linf", eps, -1.0, 2.0)
        truth = exact_box(model, InputSet.around(x, threat).box)
        widths["exact"].append((truth.upper - truth.lower).mean())
        certifier = ExplanationCertifier(model, x, Explanation(), 3)
        for method in METHODS:
            box = certifier.box(x.expand(3, -1), torch.eye(3), threat, method=method)
            assert bool(((box.lower <= truth.lower) & (truth.upper <= box.upper)).all())
            widths[method].append((box.upper - box.lower).mean())
    mean = {name: float(torch.stack(each).mean()) for name, each in widths.items()}
    with capsys.disabled():
        print(f"\neps {eps}: mean width over the exact one's", end=" ")
        print({name: round(width / mean["exact"], 2) for name, width in mean.items()})
    assert mean["exact"] <= mean["linear"] <= mean["crown-interval"] <= mean["interval"]


def test_features_asked_for() -> None:
    """Have the linear box; the others that of intervals."""
    model, x, seed = net("relu"), torch.rand(2, *SHAPE), torch.eye(CLASSES)[:2]
    certifier, threat = ExplanationCertifier(model, x, Explanation()), ThreatModel.box("linf", 0.3)
    asked = torch.zeros(SHAPE, dtype=torch.bool)
    asked[0, 1:3, 2] = True
    some = certifier.box(x, seed, threat, method="linear", features=asked)
    whole = certifier.box(x, seed, threat, method="linear")
    other = certifier.box(x, seed, threat, method="crown-interval")
    for end in ("lower", "upper"):
        got, all_ = (getattr(box, end) for box in (some, whole))
        assert torch.allclose(got[:, asked], all_[:, asked], atol=1e-5)
    inside = (some.lower >= other.lower - 1e-5) & (some.upper <= other.upper + 1e-5)
    assert bool(inside.all())
    narrower = (whole.upper - whole.lower < (some.upper - some.lower) - 1e-5)[:, ~asked]
    assert bool(narrower.any())

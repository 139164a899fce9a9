"""Features that are proved monotone are so at every point that was tried."""

from __future__ import annotations

import pytest
import torch
from explanation_nets import net
from torch import nn

from attacks.explanations import Explanation, explain
from attacks.threat import ThreatModel, WeightBudget
from certify.explaining import METHODS, ExplanationCertifier
from certify.monotonicity import certify_monotone

FEATURES = torch.tensor([0, 3, 7, 8, 15])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "max pooling", "residual"])
def test_slopes_along_a_freed_feature_are_held(name: str, method: str) -> None:
    torch.manual_seed(0)
    model, x = net(name), torch.rand(3, 1, 4, 4)
    target = torch.arange(3)
    threat = ThreatModel.box("linf", 0.05)
    found = certify_monotone(
        ExplanationCertifier(model, x, Explanation()),
        x,
        torch.eye(3),
        FEATURES,
        threat,
        method=method,  # type: ignore[arg-type]
    )
    low, high = threat.bounds(x)
    for trial in range(40):
        point = low + torch.rand_like(x) * (high - low)
        for place, feature in enumerate(FEATURES.tolist()):
            moved = point.clone().flatten(1)
            moved[:, feature] = torch.rand(3) if trial % 2 else float(trial % 4 == 0)
            slope = explain(model, moved.view_as(x), target).flatten(1)[:, feature]
            assert bool((found.slopes.lower[:, place] <= slope).all())
            assert bool((found.slopes.upper[:, place] >= slope).all())
    assert bool((found.increasing == (found.slopes.lower >= 0)).all())
    assert bool((found.decreasing == (found.slopes.upper <= 0)).all())


@pytest.mark.parametrize("method", METHODS)
def test_what_is_monotone_by_construction_is_proved_so(method: str) -> None:
    """Weights of one sign make every logit rise in the first two features and fall in the third."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight.abs_()[:, 2].neg_()
        model[0].weight[:, 3] = torch.tensor([1.0, -1] * 4)
        model[2].weight.abs_()
    x = torch.rand(6, 4)
    seed = torch.tensor([[1.0, 0]]).expand(6, -1)
    threat = ThreatModel.box("linf", 0.1)
    for budget in (None, WeightBudget(0.05)):
        found = certify_monotone(
            ExplanationCertifier(model, x, Explanation()),
            x,
            seed,
            torch.arange(4),
            threat,
            budget,
            method,  # type: ignore[arg-type]
        )
        assert bool(found.increasing[:, :2].all())
        assert bool(found.decreasing[:, 2].all())
        assert not bool(found.increasing[:, 2].any())
    certifier = ExplanationCertifier(model, x, Explanation())
    falling = certify_monotone(certifier, x, -seed, torch.arange(4), threat, None, method)  # type: ignore[arg-type]
    assert bool(falling.decreasing[:, :2].all())


def test_a_feature_is_freed_to_its_whole_range() -> None:
    """A unit that turns at 0.9 is out of the ball's reach, and not out of the range's."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        model[0].bias.copy_(torch.tensor([0.1, -0.9]))
        model[2].weight.copy_(torch.tensor([[1.0, -3.0]]))
    x, seed = torch.full((1, 2), 0.2), torch.ones(1, 1)
    for upper, rises in ((1.0, False), (0.8, True)):
        threat = ThreatModel.box("linf", 0.1, 0.0, upper, immutable=torch.tensor([True, False]))
        certifier = ExplanationCertifier(model, x, Explanation())
        found = certify_monotone(certifier, x, seed, torch.tensor([0]), threat)
        assert bool(found.increasing) is rises


def test_nothing_is_proved_of_what_is_no_number() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.fill_(1e30)
        model[2].weight.fill_(1e30)
    x = torch.rand(1, 2)
    certifier = ExplanationCertifier(model, x, Explanation())
    threat = ThreatModel.box("linf", 0.1, -1.0)
    found = certify_monotone(certifier, x, torch.ones(1, 1), torch.arange(2), threat)
    assert not bool((found.slopes.lower.isfinite() & found.slopes.upper.isfinite()).any())

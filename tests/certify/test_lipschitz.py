"""Local Lipschitz constants: between what is found and what is proved lies the truth."""

from __future__ import annotations

import pytest
import torch
from exact_nets import _SQUARE, _all_cuts, random_net
from explanation_nets import CLASSES, SHAPE, net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks.explanations import Explanation
from attacks.threat import NORMS, Norm, ThreatModel
from certify import lipschitz, slopes
from certify.explaining import ExplanationCertifier
from certify.interval import Interval
from certify.lipschitz import LocalLipschitz, local_lipschitz
from certify.slope_curves import BENT
from certify.specification import margins

ORDER = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}
DISTANCE = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}


def exact(model: nn.Module, low: Tensor, high: Tensor) -> Tensor:
    """The largest norms, (norms, logits), over all regions of a perceptron of two inputs."""
    model = model.double()
    x = torch.stack([torch.where(torch.tensor(pick), high, low) for pick in _SQUARE]).double()
    pieces = [(x, x)]
    for step in model.steps:
        if isinstance(step, nn.ReLU):
            pieces = [cut for piece in pieces for cut in _all_cuts(*piece)]
            pieces = [(h * (h.sum(0) > 0), at) for h, at in pieces]
        else:
            pieces = [(step(h), at) for h, at in pieces]
    found = []
    for _, at in pieces:
        turned = at.roll(-1, 0)
        if (at[:, 0] * turned[:, 1] - at[:, 1] * turned[:, 0]).sum().abs() > 1e-9:
            gradient = torch.autograd.functional.jacobian(model, at.mean(0, keepdim=True))[0, :, 0]
            found.append(torch.stack([gradient.norm(o, 1) for o in ORDER.values()]))
    model.float()
    return torch.stack(found).amax(0)


def perceptron(seed: int) -> nn.Module:
    return random_net(seed + 2 * (seed // 3))  # the kinds 0 to 2 of five


def check_exact(seed: int) -> LocalLipschitz:
    """Where there is time, both bounds are the exact value."""
    model = perceptron(seed)
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.8, 0.7])
    middle, radius = (low + high) / 2, (high - low) / 2
    threat = ThreatModel.box("linf", 1.0, scale=radius)
    found = local_lipschitz(model, middle[None], threat, budget=600)
    truth = exact(_scaled(model, radius), low / radius, high / radius)[0]
    assert bool((found.lower[0] <= truth * (1 + 1e-9)).all())
    assert bool((found.upper[0] >= truth * (1 - 1e-9)).all()), "a bound below the truth"
    if bool((found.subproblems < 599).all()):
        assert bool((found.upper[0] <= truth * (1 + 3e-4) + 1e-6).all())
    return found


def check_some() -> None:
    for seed in range(6):
        check_exact(seed)


def _scaled(model: nn.Module, radius: Tensor) -> nn.Module:
    """The same function of the input in units of the radius."""
    first = nn.Linear(2, 2, bias=False)
    first.weight = nn.Parameter(torch.diag(radius), requires_grad=False)
    copied = random_net(0)
    copied.steps = [first, *model.steps]
    copied.layers = nn.ModuleList(copied.steps)
    return copied


@pytest.mark.parametrize("seed", range(6))
def test_exact_on_small_nets(seed: int) -> None:
    found = check_exact(seed)
    assert bool((found.subproblems < 599).all()), "the search did not end"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 60))
def test_exact_on_many_small_nets(seed: int) -> None:
    check_exact(seed)


def test_a_planted_mask_turns_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slope that is not known, taken for 0."""

    def wrong(z: Interval, at: float) -> Interval:
        known = (z.lower > at).to(z.lower.dtype)
        return Interval(known, known, positive=True)

    monkeypatch.setitem(BENT, slopes.step, wrong)
    with pytest.raises(AssertionError, match="below the truth"):
        check_some()


def test_a_planted_lost_case_turns_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two halves, only the first."""
    split = lipschitz._Search._split

    def wrong(self: lipschitz._Search, cases: lipschitz._Cases) -> lipschitz._Cases:
        found = split(self, cases)
        return found[torch.arange(len(found) // 2)]

    monkeypatch.setattr(lipschitz._Search, "_split", wrong)
    monkeypatch.setattr(lipschitz._Search, "_points", lambda *_: None)
    with pytest.raises(AssertionError, match="below the truth"):
        check_some()


NAMES = ["relu", "gelu", "sigmoid, images", "max pooling", "residual", "elu", "absolute value"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NAMES)
def test_no_two_points_are_further_apart(name: str, norm: Norm) -> None:
    """Of logits and of margins; near each other, and anywhere in the set."""
    model = net(name)
    torch.manual_seed(1)
    x = torch.rand(2, *SHAPE)
    threat = ThreatModel.box(norm, 0.1)
    spec = margins(torch.tensor([0, 2]), CLASSES)
    rows = torch.cat([torch.eye(CLASSES).expand(2, -1, -1), spec.coefficients], 1)
    found = local_lipschitz(model, x, threat, rows, budget=5)
    assert bool((found.lower <= found.upper).all() and (found.upper <= found.root).all())
    assert bool(found.upper.isfinite().all())
    exactly = model.double()
    for trial in range(30):
        ends = [_drawn(x.double(), threat) for _ in range(2)]
        if trial % 2:
            ends[1] = ends[0] + (ends[1] - ends[0]) * 1e-3
        with torch.no_grad():
            change = exactly(ends[1]) - exactly(ends[0])
        change = (rows.double() @ change[:, :, None])[:, :, 0].abs()
        apart = (ends[1] - ends[0]).flatten(1).norm(DISTANCE[norm], 1)
        assert bool((change <= found.upper * apart[:, None] * (1 + 1e-9)).all())


def _drawn(x: Tensor, threat: ThreatModel) -> Tensor:
    """A point of each ball within the box of inputs."""
    away = torch.rand_like(x) * 2 - 1
    size = away.flatten(1).norm(DISTANCE[threat.norm], 1).view(-1, *(1,) * (x.dim() - 1))
    return (x + away / size * threat.eps * torch.rand(())).clamp(0, 1)


def test_never_worse_than_sums_of_boxes() -> None:
    for name in ("relu", "sigmoid, images", "max pooling"):
        model, x = net(name), torch.rand(2, *SHAPE)
        threat, seed = ThreatModel.box("linf", 0.1), torch.eye(CLASSES)[:2]
        box = ExplanationCertifier(model, x, Explanation()).box(x, seed, threat, method="linear")
        sums = torch.maximum(-box.lower, box.upper).flatten(1).sum(1)
        found = local_lipschitz(model, x, threat, seed[:, None])
        assert bool((found.upper[:, 0] <= sums * (1 + 1e-4)).all())


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 50), st.sampled_from(NORMS))
def test_more_cases_never_make_it_worse(seed: int, norm: Norm) -> None:
    model, x = perceptron(seed), torch.full((1, 2), 0.5)
    threat = ThreatModel.box(norm, 0.4)
    before: LocalLipschitz | None = None
    for budget in (1, 9, 41):
        found = local_lipschitz(model, x, threat, budget=budget)
        assert bool((found.subproblems <= budget).all())
        assert bool((found.upper <= found.root).all() and (found.lower <= found.upper).all())
        if before is not None:
            assert bool((found.upper <= before.upper).all())
            assert bool((found.lower >= before.lower).all())
        before = found


def test_smooth_nets_are_climbed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = net("sigmoid, images"), torch.rand(2, *SHAPE)
    threat = ThreatModel.box("linf", 0.2)
    climbed = local_lipschitz(model, x, threat)
    monkeypatch.setattr(lipschitz, "_STEPS", 0)
    drawn = local_lipschitz(model, x, threat)
    assert bool((climbed.lower >= drawn.lower).all())
    assert bool((climbed.lower > drawn.lower * (1 + 1e-4)).any())
    assert bool((climbed.lower <= climbed.upper).all())


def test_units_of_a_linear_map() -> None:
    """Scales count, features that cannot change do not, and nothing is lost."""
    model, x = nn.Sequential(nn.Linear(4, 3)).eval(), torch.full((1, 4), 0.5)
    scale, fixed = torch.tensor([1.0, 2.0, 0.5, 1.0]), torch.tensor([False, False, False, True])
    weight = model[0].weight.detach().double() * (scale * ~fixed)
    for norm in NORMS:
        threat = ThreatModel.box(norm, 0.1, immutable=fixed, scale=scale)
        found = local_lipschitz(model, x, threat)
        truth = weight.norm(ORDER[norm], 1)
        assert torch.allclose(found.upper[0], truth, rtol=1e-5)
        assert bool((found.upper[0] >= truth).all() and (found.lower[0] <= truth).all())

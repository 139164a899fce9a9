"""Masked models raise the flag that says so, and honest ones raise none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_checks import MODELS, NORMS, Case
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.diagnostics import SIGNS, Diagnosis, diagnose
from attacks.errors import AttackError
from attacks.losses import margin
from attacks.masking import Probe
from attacks.pgd import PGDConfig
from attacks.substitute import substitute_of
from attacks.threat import ThreatModel


class Masked(nn.Module):
    """A model behind something that hides its gradient, or makes it useless."""

    def __init__(self, model: nn.Module, before=None, after=None) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.before is None else self.before(x)
        logits = self.model(x)
        return logits if self.after is None else self.after(logits)


QUICK = {("cnn-small", "linf"), ("mlp", "l2"), ("mlp", "l1")}
"""Honest models that are looked at every time."""


def look(case: Case, module: nn.Module, **more) -> Diagnosis:  # type: ignore[no-untyped-def]
    classifier = TiledClassifier(module.eval())
    most = more.pop("samples", 32)
    return diagnose(classifier, case.x, case.y, case.ids, case.threat, samples=most, **more)


def flags(case: Case, module: nn.Module) -> set[str]:
    return {flag.name for flag in look(case, module).flags if flag.red}


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(name, norm, marks=[pytest.mark.slow] * ((name, norm) not in QUICK))
        for name in MODELS
        for norm in NORMS
    ],
)
def test_honest_models_raise_no_flag(name, norm):
    case = Case.make(name, norm)
    assert flags(case, case.module) == set()


def rounded(x: Tensor) -> Tensor:
    """To eighths; the gradient is there, and is 0."""
    return (x * 8).round() / 8 + 0 * x


def straight_through(x: Tensor) -> Tensor:
    """Rounded to eighths, with the gradient of what is not."""
    return x + ((x * 8).round() / 8 - x).detach()


def shattered(x: Tensor) -> Tensor:
    """A fast wave on the input: gradients of the wrong sign everywhere."""
    return x + 0.003 * torch.sin(3000 * x)


def hidden(x: Tensor) -> Tensor:
    """As it is, without a gradient."""
    return x.detach() + 0 * x


def back_again(x: Tensor) -> Tensor:
    """Changes of up to 0.02 count; beyond 0.024 the nearest eighth is put back."""
    near = (x * 8).round() / 8
    return torch.where((x - near).abs() > 0.024, near + 0 * x, x)


class SomeNoise(nn.Module):
    """Random off the data alone: where an input is not in eighths."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        off = (x * 8 != (x * 8).round()).flatten(1).any(1, keepdim=True)
        logits: Tensor = self.model(x)
        return logits + 0.01 * off * torch.randn_like(logits)


MASKS = {
    "rounded": {"before": rounded},
    "straight-through": {"before": straight_through},
    "softmax": {"after": lambda z: z.softmax(1)},
    "saturated": {"after": lambda z: 1e4 * z},
    "noisy": {"after": lambda z: z + 0.01 * torch.randn_like(z)},
    "shattered": {"before": shattered},
    "hidden": {"before": hidden},
    "constant": {"after": lambda z: torch.eye(z.shape[1])[:1] + 0 * z},
    "infinite": {"after": lambda z: z + 0 * (z - z.detach()).abs().sqrt()},
    "back-again": {"before": back_again},
}
RAISED = [
    ("mlp", "rounded", {"zero-gradient", "quantised-input", "black-box-beats-white-box"}),
    ("cnn-small", "straight-through", {"quantised-input"}),
    ("cnn-small", "softmax", {"softmax-output"}),
    ("cnn-small", "saturated", {"saturated-logits"}),
    ("cnn-small", "noisy", {"random-output"}),
    ("mlp", "shattered", {"noise-beats-gradient", "black-box-beats-white-box"}),
    ("mlp", "constant", {"loss-stands-still"}),
    ("cnn-small", "infinite", {"exploding-gradient"}),
    ("cnn-small", "back-again", {"not-monotone"}),
    ("mlp", "hidden", {"transfer-beats-white-box", "holds-at-any-eps"}),
]


AT_ONCE = {"straight-through", "softmax", "saturated", "noisy", "infinite"}
"""Masks that need no search: at an eps where nothing is left to be searched for."""


def masked(model: str, mask: str) -> tuple[Case, nn.Module]:
    case = Case.make(model, "linf")
    if mask in AT_ONCE:
        case = replace(case, threat=replace(case.threat, eps=0.05))
    if mask == "back-again":
        eighths = (case.x * 8).round() / 8
        y = TiledClassifier(case.module).logits(eighths).argmax(1)
        case = replace(case, x=eighths, y=y, threat=replace(case.threat, eps=0.04))
    return case, Masked(case.module, **MASKS[mask])


@pytest.mark.parametrize(("model", "mask", "told"), RAISED)
def test_masked_models_raise_theirs(model, mask, told):
    raised = flags(*masked(model, mask))
    assert told <= raised, raised


def still(case: Case, module: nn.Module, norm: str, eps: float) -> float:
    case = replace(case, threat=ThreatModel.box(norm, eps))
    found = look(case, module, samples=12).flags
    (share,) = [flag.value for flag in found if flag.name == "loss-stands-still"]
    return share


@pytest.mark.parametrize(
    ("norm", "eps"),
    [("linf", 1e-5), ("linf", 1e-4), ("linf", 1e-3), ("linf", 0.1), ("l2", 1e-3), ("l2", 0.02)],
)
@pytest.mark.parametrize("name", ["cnn-small", "mlp-sigmoid"])
def test_no_honest_loss_stands_still_at_any_eps(name, norm, eps):
    case = Case.make(name, norm)
    assert still(case, case.module, norm, eps) < 0.1


@pytest.mark.parametrize("mask", ["rounded", "straight-through", "constant"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 1e-4), ("l2", 1e-3)])
def test_a_masked_loss_stands_still_at_a_small_eps(mask, norm, eps):
    case = Case.make("cnn-small", norm)
    assert still(case, Masked(case.module, **MASKS[mask]).eval(), norm, eps) > 0.5


def test_what_is_promised_is_what_a_linear_model_gives():
    case = Case.make("mlp", "linf")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(9, 2).eval().requires_grad_(False)
    y = model(case.x).argmax(1)
    for norm in ("linf", "l2"):
        threat = ThreatModel.box(norm, 0.02)
        probe = Probe(TiledClassifier(model), case.x, y, case.ids, threat, 0, model(case.x))
        lowest = probe.attack(PGDConfig(steps=60, restarts=1, loss="margin", step_size=0.004))[1]
        drop = margin(probe.logits, y) - lowest
        held = lowest > 0  # where it breaks, the search ends at once
        assert int(held.sum()) > 60
        assert torch.allclose(probe.promised()[held], drop[held].double(), rtol=0.01)


def test_every_flag_is_raised_by_some_model():
    assert set().union(*(told for _, _, told in RAISED)) == set(SIGNS)


def test_a_model_that_is_random_off_the_data_alone():
    case = Case.make("cnn-small", "linf")
    eighths = (case.x * 8).round() / 8
    y = TiledClassifier(case.module).logits(eighths).argmax(1)
    raised = flags(replace(case, x=eighths, y=y), SomeNoise(case.module))
    assert "random-output" in raised


def test_a_model_that_calls_everything_alike_truly_holds():
    case, module = masked("mlp", "constant")
    assert "holds-at-any-eps" not in flags(case, module)


def test_neither_order_nor_company_matters():
    case, module = masked("mlp", "hidden")
    first = look(case, module)
    shuffled = case.rows(torch.randperm(len(case.x), generator=torch.Generator().manual_seed(5)))
    assert first.ids.tolist() == sorted(first.ids.tolist())
    tiles = TiledClassifier(module, (32, 64))
    again = diagnose(tiles, shuffled.x, shuffled.y, shuffled.ids, case.threat, samples=32)
    assert torch.equal(first.ids, again.ids)
    for one, other in zip(first.flags, again.flags, strict=True):
        assert torch.equal(one.rows, other.rows), one.name


def test_a_given_surrogate_is_used():
    case, module = masked("mlp", "hidden")
    same = look(case, module, surrogate=TiledClassifier(case.module))
    blind = look(case, module, surrogate=TiledClassifier(Masked(case.module, before=hidden).eval()))
    values = [
        {flag.name: flag.value for flag in found.flags}["transfer-beats-white-box"]
        for found in (same, blind)
    ]
    assert values[0] > 0.3 > values[1]


def test_the_callers_random_numbers_are_left_alone():
    case, module = masked("mlp", "hidden")
    classifier = TiledClassifier(module.eval())
    before = torch.random.get_rng_state()
    substitute_of(classifier, case.x, case.ids, case.threat, 0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_one_sample_alone_is_no_red_flag():
    case = Case.make("mlp", "linf", n=5)
    found = look(case, case.module).flags
    (flag,) = [flag for flag in found if flag.name == "not-monotone"]
    assert replace(flag, rows=torch.tensor([True, False])).red is False
    assert replace(flag, rows=torch.tensor([True, True])).red is True
    (flag,) = [flag for flag in found if flag.name == "exploding-gradient"]
    assert replace(flag, rows=torch.tensor([True, False])).red is True


def test_confident_is_not_saturated():
    case = Case.make("mlp", "linf")
    case = replace(case, threat=replace(case.threat, eps=0.5))
    confident = Masked(case.module, after=lambda z: z * 30 / margin(z, z.argmax(1))[:, None])
    probability = confident(case.x).softmax(1).amax(1)
    assert bool((probability == 1).all())
    assert "saturated-logits" not in flags(case, confident)


def test_what_may_not_change_says_nothing_of_any_eps():
    case = Case.make("mlp", "linf")
    threat = ThreatModel.box("linf", 0.1, immutable=torch.arange(9) == 0)
    found = look(replace(case, threat=threat), case.module)
    (flag,) = [flag for flag in found.flags if flag.name == "holds-at-any-eps"]
    assert flag.value is None
    assert not flag.red


def test_l0_is_refused():
    case = Case.make("mlp", "linf")
    with pytest.raises(AttackError):
        look(replace(case, threat=ThreatModel.box("l0", 1.0)), case.module)


def test_no_sample_that_is_right_gives_no_flag():
    case = Case.make("mlp", "linf")
    for none in (replace(case, y=(case.y + 1) % 3), case.rows(torch.arange(0))):
        found = look(none, case.module)
        assert (found.flags, len(found.ids)) == ((), 0)

"""Masked models raise the flag that says so, and honest ones raise none."""

from __future__ import annotations

import pytest
import torch
from attack_checks import MODELS, NORMS, Case
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.diagnostics import diagnose
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


def flags(case: Case, module: nn.Module) -> dict[str, float | None]:
    classifier = TiledClassifier(module.eval())
    found = diagnose(classifier, case.x, case.y, case.ids, case.threat)
    return {flag.name: flag.value for flag in found if flag.red}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", MODELS)
def test_honest_models_raise_no_flag(name, norm):
    case = Case.make(name, norm)
    assert flags(case, case.module) == {}


def rounded(x: Tensor) -> Tensor:
    """To eighths; the gradient is there, and is 0."""
    return (x * 8).round() / 8 + 0 * x


def straight_through(x: Tensor) -> Tensor:
    """Rounded to eighths, with the gradient of what is not."""
    return x + ((x * 8).round() / 8 - x).detach()


def shattered(x: Tensor) -> Tensor:
    """A fast wave on the input: gradients of the wrong sign everywhere."""
    return x + 0.003 * torch.sin(3000 * x)


CASES = [
    (
        lambda: {"before": lambda x: (x * 8).round() / 8 + 0 * x},
        {"zero-gradient", "quantised-input"},
    ),
    (lambda: {"before": straight_through}, {"quantised-input"}),
    (lambda: {"after": lambda z: z.softmax(1)}, {"softmax-output"}),
    (lambda: {"after": lambda z: 1e4 * z}, {"saturated-logits"}),
    (lambda: {"after": lambda z: z + 0.01 * torch.randn_like(z)}, {"random-output"}),
    (lambda: {"before": shattered}, {"noise-beats-gradient"}),
    (lambda: {"before": lambda x: x.detach() + 0 * x}, {"zero-gradient"}),
    (lambda: {"after": lambda z: torch.eye(5)[:1] + 0 * z}, {"holds-at-any-eps"}),
    (lambda: {"after": lambda z: z + 0 * (z - z.detach()).abs().sqrt()}, {"exploding-gradient"}),
]


@pytest.mark.parametrize(("how", "told"), CASES)
def test_masked_models_raise_theirs(how, told):
    case = Case.make("cnn-small", "linf")
    raised = flags(case, Masked(case.module, **how()))
    assert told <= set(raised), raised


def test_what_may_not_change_says_nothing_of_any_eps():
    case = Case.make("mlp", "linf")
    immutable = torch.arange(9) == 0
    threat = ThreatModel.box("linf", 0.1, immutable=immutable)
    found = diagnose(TiledClassifier(case.module), case.x, case.y, case.ids, threat)
    (flag,) = [flag for flag in found if flag.name == "holds-at-any-eps"]
    assert flag.value is None
    assert not flag.red


def test_no_sample_that_is_right_gives_no_flag():
    case = Case.make("mlp", "linf")
    wrong = (case.y + 1) % 3
    assert diagnose(TiledClassifier(case.module), case.x, wrong, case.ids, case.threat) == ()
    none = case.rows(torch.arange(0))
    assert diagnose(TiledClassifier(case.module), none.x, none.y, none.ids, case.threat) == ()

"""What is not finite is a failure where the attacker may go, and says nothing elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_checks import Case
from torch import Tensor, nn

from attacks.apgd import APGDConfig
from attacks.fab import FABConfig
from attacks.fmn import FMNConfig
from attacks.foolbox_config import FoolboxConfig
from attacks.hop_skip_jump import HopSkipJumpConfig

STRAYING = [
    (FMNConfig(steps=10), "linf"),
    (FABConfig(steps=8), "linf"),
    (APGDConfig(steps=10), "l1"),
    (HopSkipJumpConfig(queries=60, batch=10), "l2"),
    (FoolboxConfig("L2CarliniWagnerAttack", {"steps": 5, "binary_search_steps": 2}), "l2"),
]


class NanWhere(nn.Module):
    """NaN logits of inputs that are farther than eps from every sample, or nearer than that."""

    def __init__(self, case: Case, outside: bool) -> None:
        super().__init__()
        self.module, self.outside = case.module, outside
        self.samples, self.eps = case.x.flatten(1).double(), case.threat.eps
        self.order = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}[case.threat.norm]

    def forward(self, x: Tensor) -> Tensor:
        rows = x.detach().flatten(1).double()
        away = torch.cdist(rows, self.samples, self.order).amin(1)
        bad = away > self.eps if self.outside else (away > 0) & (away <= self.eps)
        return self.module(x) * torch.where(bad, torch.nan, 1.0).to(x.dtype)[:, None]


@pytest.mark.parametrize(("config", "norm"), STRAYING, ids=str)
def test_a_nan_outside_of_the_threat_model_is_no_failure(config, norm):
    case = replace(Case.make("mlp", norm, n=40), config=config)
    case = replace(case, module=NanWhere(case, outside=True).eval())
    result = case.run()
    assert not result.not_finite.any()
    assert result.lowest.isfinite().all()


@pytest.mark.parametrize(("config", "norm"), STRAYING[:3], ids=str)
def test_a_nan_inside_is(config, norm):
    case = replace(Case.make("mlp", norm, n=40), config=config)
    case = replace(case, module=NanWhere(case, outside=False).eval())
    assert case.run().not_finite.any()

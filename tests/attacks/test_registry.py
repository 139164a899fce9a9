"""Every attack of the registry keeps its promises, and its settings can be recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attack_checks import NORMS, Case, check_inside, check_order_free
from torch import Tensor, nn

from attacks.apgd import APGDConfig
from attacks.classifier import TiledClassifier
from attacks.ddn import DDNConfig
from attacks.errors import AttackError
from attacks.fab import FABConfig
from attacks.fmn import FMNConfig
from attacks.foolbox_config import FoolboxConfig
from attacks.guided import GuidedConfig
from attacks.halving import HalvingConfig
from attacks.hop_skip_jump import HopSkipJumpConfig
from attacks.nearest import NearestConfig
from attacks.pdpgd import PDPGDConfig
from attacks.pgd import PGDConfig
from attacks.registry import KINDS, AttackConfig, from_plain, kind_of, to_plain
from attacks.sigma_zero import SigmaZeroConfig
from attacks.square import SquareConfig
from attacks.suites import SUITES
from attacks.transform_search import TransformConfig

SMALL: list[AttackConfig] = [
    PGDConfig(steps=4, restarts=2),
    APGDConfig(steps=6, targets=2),
    HalvingConfig(steps=2),
    FABConfig(steps=8, targets=2),
    FMNConfig(steps=10),
    DDNConfig(steps=10),
    PDPGDConfig(steps=40),
    SigmaZeroConfig(steps=20, targets=2),
    NearestConfig(steps=12, restarts=1, targets=2, queries=20),
    SquareConfig(queries=40),
    HopSkipJumpConfig(queries=120, batch=10),
    GuidedConfig(queries=40),
    TransformConfig(levels=2, draws=3, families=("rotate", "noise")),
    FoolboxConfig("LinfDeepFoolAttack", {"steps": 5}),
]


def test_there_is_a_small_form_of_each():
    assert {kind_of(config).name for config in SMALL} == set(KINDS)


CASES = [
    (config, norm)
    for config in SMALL
    for norm in (*NORMS, "l0")
    if norm in kind_of(config).norms and not (isinstance(config, FoolboxConfig) and norm != "linf")
]


@pytest.mark.parametrize(("config", "norm"), CASES, ids=str)
def test_finds_hold_and_hang_on_nothing_but_the_sample(config, norm):
    case = replace(Case.make("cnn-small", norm, n=70), config=config)
    result = case.run()
    check_inside(case.threat, case.x, result.adversarial)
    predicted = TiledClassifier(case.module).logits(result.adversarial).argmax(1)
    assert (predicted != case.y)[result.found].all()
    assert torch.equal(result.adversarial[~result.found], case.x[~result.found])
    assert (result.forwards >= 1).all()
    assert result.lowest.isfinite().all()
    most = kind_of(config).passes(config, 5)
    assert most is None or int(result.forwards.max()) <= most
    if kind_of(config).knowledge != "white-box":
        assert not result.backwards.any()
    if not isinstance(config, FoolboxConfig):  # its noise belongs to the place in a batch
        check_order_free(case, result, seed=1)


@pytest.mark.parametrize("config", SMALL, ids=str)
def test_no_samples_are_no_error(config):
    norm = "linf" if "linf" in kind_of(config).norms else kind_of(config).norms[0]
    case = replace(Case.make("cnn-small", norm, n=40).rows(torch.arange(0)), config=config)
    assert len(case.run().found) == 0


@pytest.mark.parametrize("config", SMALL, ids=str)
def test_settings_go_to_a_record_and_come_back(config):
    plain = to_plain(config)
    assert all(isinstance(value, int | float | str | bool | None) for value in plain.values())
    assert from_plain(kind_of(config).name, plain) == config


class Two(nn.Module):
    """The first two classes of a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[:, :2]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_suites_break_at_least_what_pgd_does(suite, classes):
    """Of a table and few classes, where AutoAttack itself fails."""
    case = Case.make("mlp", "linf", n=60)
    if classes == 2:
        module = Two(case.module).eval()
        y = TiledClassifier(module).logits(case.x).argmax(1)
        case = replace(case, module=module, y=y)
    usual = replace(case, config=PGDConfig(loss="margin")).run().found
    found = torch.zeros_like(usual)
    for _, config in suite.parts:
        config = SquareConfig(queries=50) if isinstance(config, SquareConfig) else config
        left = (~found).nonzero()[:, 0]
        found[left] = replace(case.rows(left), config=config).run().found
    assert bool(usual.any())
    assert (found | ~usual).all()


def test_settings_of_no_attack_are_refused():
    with pytest.raises(KeyError):
        from_plain("none", {})
    with pytest.raises(TypeError):
        from_plain("apgd", {"queries": 3})
    with pytest.raises(AttackError):
        from_plain("apgd", {"steps": 0})


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("apgd", "steps", 1.5),
        ("apgd", "steps", True),
        ("square", "queries", "9"),
        ("fmn", "alpha", "x"),
        ("transformations", "families", "turn"),
        ("transformations", "families", 3),
        ("foolbox", "restarts", None),
    ],
)
def test_settings_of_another_type_are_refused(name, setting, value):
    more = {"name": "LinfPGD"} if name == "foolbox" else {}
    with pytest.raises(AttackError, match=f"{setting} of the attack '{name}'"):
        from_plain(name, {setting: value, **more})


def test_families_may_be_a_list():
    assert from_plain("transformations", {"families": ["rotate"]}).families == ("rotate",)

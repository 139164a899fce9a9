"""Runs on another device say what runs on the CPU say."""

from __future__ import annotations

from copy import deepcopy

import pytest

import robustbench_c
from attacks.apgd import APGDConfig
from attacks.ddn import DDNConfig
from attacks.fab import FABConfig
from attacks.fmn import FMNConfig
from attacks.foolbox_config import FoolboxConfig
from attacks.guided import GuidedConfig
from attacks.halving import HalvingConfig
from attacks.hop_skip_jump import HopSkipJumpConfig
from attacks.nearest import NearestConfig
from attacks.pdpgd import PDPGDConfig
from attacks.pgd import PGDConfig
from attacks.sigma_zero import SigmaZeroConfig
from attacks.square import SquareConfig
from attacks.threat import ThreatModel
from attacks.transform_search import TransformConfig
from certify.smoothing import SmoothingConfig
from robustbench_c.evaluation import corrupting, smoothing, transforming
from robustbench_c.evaluation.certifying import Budget, CertifyConfig
from robustbench_c.evaluation.verify import verify

ATTACKS = [
    ("linf", PGDConfig(5, 2)),
    ("l2", PGDConfig(5, 2, loss="dlr")),
    ("l1", PGDConfig(5, 2, loss="margin", goal="multi-targeted")),
    ("linf", APGDConfig(8, 2)),
    ("l2", APGDConfig(8, targets=2, loss="dlr", projection="shrink")),
    ("l1", APGDConfig(8, 1)),
    ("linf", HalvingConfig(4)),
    ("linf", FABConfig(5, 2)),
    ("l2", FABConfig(5, targets=2)),
    ("l1", FABConfig(5, targets=2)),
    ("linf", FMNConfig(6)),
    ("l2", FMNConfig(6)),
    ("l1", FMNConfig(6)),
    ("l2", DDNConfig(6)),
    ("l1", PDPGDConfig(6)),
    ("l0", SigmaZeroConfig(12)),
    ("l0", NearestConfig(12)),
    ("linf", NearestConfig(5, queries=20)),
    ("l1", NearestConfig(5, queries=20)),
    ("linf", SquareConfig(15)),
    ("l2", SquareConfig(15)),
    ("l1", SquareConfig(15)),
    ("linf", GuidedConfig(20)),
    ("linf", HopSkipJumpConfig(60, batch=10)),
    ("l2", HopSkipJumpConfig(60, batch=10)),
    ("linf", TransformConfig(2, 3)),
    ("linf", FoolboxConfig("LinfPGD", {"steps": 3})),
    ("l2", FoolboxConfig("BoundaryAttack", {"steps": 5})),
]
EPS = {"linf": 0.06, "l2": 0.4, "l1": 2.0, "l0": 4}


def named(case):
    return getattr(case, "name", None) or (
        type(case).__name__ if not isinstance(case, str) else case
    )


@pytest.fixture
def both(net, images, tmp_path, device):
    """A run on the CPU, and the same run on the device."""

    def run(call, **options):
        here = call(deepcopy(net), images, device="cpu", out=tmp_path / "cpu", **options)
        with device.there():
            name, out = device.name, tmp_path / "device"
            return here, call(deepcopy(net), images, device=name, out=out, **options)

    return run


@pytest.mark.parametrize(
    ("norm", "config"),
    [ATTACKS[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in ATTACKS[1:])],
    ids=named,
)
def test_attacks(both, same, norm, config):
    threat = ThreatModel.box(norm, EPS[norm])
    one, other = both(robustbench_c.evaluate, threat=threat, attack=config, diagnose=False)
    same(one, other)
    assert other.store.manifest.device == "cuda"


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("method", ["crown-ibp", "alpha-crown", "complete"])
def test_certificates(both, same, norm, method):
    config = CertifyConfig(
        method, Budget(iterations=3, subproblems=20), radius=(method, norm) == ("crown-ibp", "linf")
    )
    threat = ThreatModel.box(norm, EPS[norm] / 2)
    one, other = both(robustbench_c.evaluate, threat=threat, attack="none", certify=config)
    same(one, other)
    assert not other.store.read_step(method)["verdict"].isin(["error"]).any()


@pytest.mark.slow
def test_a_cascade_and_its_record(both, same, net, images, device):
    threat = ThreatModel.box("linf", 0.04)
    config = CertifyConfig("cascade", Budget(iterations=3, subproblems=40))
    options = {"attack": PGDConfig(4, 1), "save_adversarial": True, "diagnose": True}
    one, other = both(robustbench_c.evaluate, threat=threat, certify=config, **options)
    same(one, other)
    with device.there():
        subject = robustbench_c.evaluation.subject.subject(deepcopy(net))
        again = verify(other.store, subject, images, device.name, prove=True)
    assert not again.problems


@pytest.mark.slow
def test_corruptions(both, same):
    same(*both(corrupting.corruptions, severities=(1, 4)))


@pytest.mark.slow
def test_transformations(both, same):
    same(*both(transforming.transformations, config=TransformConfig(2, 4)))


@pytest.mark.slow
def test_smoothing(both, same):
    same(*both(smoothing.smooth, config=SmoothingConfig(0.2, n0=20, n=100, alpha=0.01)))

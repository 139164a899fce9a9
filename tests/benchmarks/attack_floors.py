"""How many samples each attack broke when this was last measured: none may grow weaker unseen.

    PYTHONPATH=. python tests/benchmarks/attack_floors.py       measures both tables anew

The short form is on a small random CNN, the full one on a shipped model. Seeds are fixed; the slack
is for the rounding of other machines.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from conftest import load_subject  # type: ignore[import-not-found]

from attacks.apgd import APGDConfig
from attacks.classifier import TiledClassifier
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
from attacks.registry import AttackConfig, kind_of
from attacks.sigma_zero import SigmaZeroConfig
from attacks.square import SquareConfig
from attacks.threat import AnyNorm, ThreatModel
from attacks.transform_search import TransformConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))
from attack_checks import Case  # type: ignore[import-not-found]

CONFIGS: tuple[AttackConfig, ...] = (
    PGDConfig(steps=10, restarts=2, loss="margin"),
    APGDConfig(steps=12, loss="dlr", targets=4),
    HalvingConfig(steps=3),
    FABConfig(steps=12, targets=4),
    FMNConfig(steps=30),
    DDNConfig(steps=30),
    PDPGDConfig(steps=60),
    SigmaZeroConfig(steps=40, targets=4),
    NearestConfig(steps=40, restarts=1, targets=2, queries=40),
    SquareConfig(queries=80),
    HopSkipJumpConfig(queries=250, batch=20),
    GuidedConfig(queries=60),
    TransformConfig(levels=2, draws=20),
    FoolboxConfig("LinfDeepFoolAttack", {"steps": 5}),
)
MODEL, SAMPLES, SHORT_SAMPLES = "fmnist-cnn-standard", 64, 32
EPS = {"linf": 0.02, "l2": 0.3, "l1": 3.0, "l0": 10.0}
LONG = ("nearest", "hop-skip-jump", "transformations", "guided")
"""Attacks whose short form is of L2 alone."""
FLOORS: dict[str, dict[str, dict[str, int]]] = {
    "full": {
        "pgd": {"linf": 28, "l2": 23, "l1": 29},
        "apgd": {"linf": 29, "l2": 23, "l1": 26},
        "apgd-halving": {"linf": 29, "l2": 23, "l1": 29},
        "fab": {"linf": 27, "l2": 23, "l1": 27},
        "fmn": {"linf": 28, "l2": 23, "l1": 29},
        "ddn": {"l2": 22},
        "pdpgd": {"l1": 30},
        "sigma-zero": {"l0": 44},
        "nearest": {"linf": 28, "l2": 23, "l1": 32, "l0": 43},
        "square": {"linf": 18, "l2": 6, "l1": 5},
        "hop-skip-jump": {"linf": 10, "l2": 8},
        "guided": {"linf": 14, "l2": 6, "l1": 8},
        "transformations": {"linf": 12, "l2": 3, "l1": 7},
        "foolbox": {"linf": 27},
    },
    "short": {
        "pgd": {"linf": 16, "l2": 15, "l1": 20},
        "apgd": {"linf": 16, "l2": 15, "l1": 20},
        "apgd-halving": {"linf": 16, "l2": 15, "l1": 20},
        "fab": {"linf": 16, "l2": 15, "l1": 20},
        "fmn": {"linf": 16, "l2": 15, "l1": 20},
        "ddn": {"l2": 14},
        "pdpgd": {"l1": 20},
        "sigma-zero": {"l0": 26},
        "nearest": {"l2": 15},
        "square": {"linf": 15, "l2": 13, "l1": 14},
        "hop-skip-jump": {"l2": 13},
        "guided": {"l2": 12},
        "transformations": {"l2": 6},
        "foolbox": {"linf": 16},
    },
}
"""Samples broken, by form, attack and norm."""


def norms_of(config: AttackConfig) -> tuple[AnyNorm, ...]:
    """The norms that an attack is measured in."""
    return ("linf",) if isinstance(config, FoolboxConfig) else kind_of(config).norms


CASES = {
    "full": [(config, norm) for config in CONFIGS for norm in norms_of(config)],
    "short": [
        (config, norm)
        for config in CONFIGS
        for norm in norms_of(config)
        if kind_of(config).name not in LONG or norm == "l2"
    ],
}


def floor(form: str, config: AttackConfig, norm: str) -> int:
    """Samples that an attack has to break: a tenth less than it did, at least one less."""
    broke = FLOORS[form][kind_of(config).name][norm]
    return broke - max(1, broke // 10)


def short_case(config: AttackConfig, norm: AnyNorm) -> Case:
    """The short form of one attack: eps is doubled for those without gradients."""
    case = replace(Case.make("cnn-small", norm, n=SHORT_SAMPLES), config=config)
    more = 1 if kind_of(config).knowledge == "white-box" else 2
    return replace(case, threat=replace(case.threat, eps=more * case.threat.eps))


Given = tuple[TiledClassifier, torch.Tensor, torch.Tensor, torch.Tensor]


@cache
def full_subject() -> Given:
    """The shipped model with the samples that it gets right."""
    subject = load_subject(MODEL, SAMPLES)
    right = subject.classifier.logits(subject.x).argmax(1) == subject.y
    return subject.classifier, subject.x[right], subject.y[right], subject.ids[right]


def full_threat(config: AttackConfig, norm: AnyNorm) -> ThreatModel:
    """As `short_case`."""
    return ThreatModel.box(norm, EPS[norm] * (1 if kind_of(config).knowledge == "white-box" else 2))


def broken(form: str, config: AttackConfig, norm: AnyNorm) -> int:
    """Samples that an attack breaks."""
    if form == "short":
        return int(short_case(config, norm).run().found.sum())
    result = kind_of(config).run(*full_subject(), full_threat(config, norm), config, 0)
    return int(result.found.sum())


if __name__ == "__main__":
    for form, cases in CASES.items():
        for config, norm in cases:
            print(form, kind_of(config).name, norm, broken(form, config, norm), flush=True)

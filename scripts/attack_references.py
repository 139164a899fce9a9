"""What `attack_strength.py` measures beside APGD: references, linear models, small ReLU nets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.classifier import TiledClassifier, prepare
from attacks.ddn import DDNConfig, ddn
from attacks.driver import recheck
from attacks.fab import FABConfig, fab
from attacks.fmn import FMNConfig, fmn
from attacks.foolbox_adapter import FoolboxConfig, foolbox_attack
from attacks.hop_skip_jump import HopSkipJumpConfig, hop_skip_jump
from attacks.nearest import NearestConfig, distance_of, nearest
from attacks.pdpgd import PDPGDConfig, pdpgd
from attacks.pgd import PGDConfig, pgd
from attacks.result import AttackResult
from attacks.sigma_zero import SigmaZeroConfig, sigma_zero
from attacks.square import SquareConfig, square
from attacks.threat import NORMS, AnyNorm, Norm, ThreatModel
from robustbench_c import data, zoo

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "attacks"))
from nearest_checks import linear_share, network, relu_distance
from nearest_checks import nearest as measured

SEED, SAMPLES, FAR = 0, 50, 1e6
MODEL, EPS = "fmnist-cnn-pgd", {"linf": 0.1, "l2": 1.5, "l1": 12.0}
THEIR_NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
NETS, OF_NET = 20, 32
FIRST_NET = 200
"""Its seed: the search was made on those from 100 to 119."""
Row = dict[str, Any]
Case = tuple[str, Callable[[], Row]]


class Subject:
    """A shipped model with the first samples that it gets right."""

    def __init__(self, name: str, samples: int) -> None:
        self.name, module = name, zoo.load(name).module
        test = data.load("fashion-mnist-mini", split="test").head(samples)
        self.classifier = prepare(module, test.x)
        right = self.classifier.logits(test.x).argmax(1) == test.y
        self.x, self.y, self.ids = test.x[right], test.y[right], test.ids[right]

    @property
    def given(self) -> tuple[TiledClassifier, Tensor, Tensor, Tensor]:
        """What every attack is called with first."""
        return self.classifier, self.x, self.y, self.ids

    def distance(self, norm: AnyNorm, points: Tensor) -> Tensor:
        """Distance of each adversarial example as the judge has it; infinite of others."""
        threat = ThreatModel.box(norm, FAR)
        judged = recheck(self.classifier, None, self.x, points, self.y, threat)
        return torch.where(judged.broken, judged.distance, torch.inf)


@cache
def subject() -> Subject:
    """The one model of all lines, once."""
    return Subject(MODEL, SAMPLES)


# references --------------------------------------------------------------------------------------


def by_foolbox(name: str, norm: AnyNorm, eps: float, options: Mapping[str, Any]) -> AttackResult:
    """An attack of foolbox."""
    config = FoolboxConfig(name, options)
    return foolbox_attack(*subject().given, ThreatModel.box(norm, eps), config, SEED)


def their_fab(norm: Norm, steps: int, targets: int) -> Tensor:
    """Distances that AutoAttack's FAB-T finds."""
    from pyautoattack.fab_pt import FABAttack_PT

    s = subject()
    attack = FABAttack_PT(
        s.classifier.module, norm=THEIR_NORM[norm], n_iter=steps, eps=FAR, targeted=True, seed=SEED
    )
    attack.device = s.x.device
    near = torch.full((len(s.x),), torch.inf, dtype=torch.float64)
    for target in range(2, 2 + targets):
        attack.target_class = target
        with torch.no_grad():
            found = attack.attack_single_run(s.x, s.y, use_rand_start=False, is_targeted=True)
        near = torch.minimum(near, s.distance(norm, found))
    return near


def their_square(norm: Norm, queries: int) -> int:
    """Samples that AutoAttack's Square leaves."""
    from pyautoattack.square import SquareAttack

    s = subject()
    attack = SquareAttack(
        s.classifier.module, norm=THEIR_NORM[norm], n_queries=queries, eps=EPS[norm], seed=SEED
    )
    found = attack.perturb(s.x, s.y)
    return int((s.distance(norm, found) > EPS[norm] * (1 + 1e-5)).sum())


def left(result: AttackResult) -> int:
    """Samples that an attack does not break."""
    return int((~result.found).sum())


def row(
    attack: str, reference: str, norm: AnyNorm, ours: int | Tensor, theirs: int | Tensor
) -> Row:
    """A line: of numbers of robust samples, or of distances."""
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        measure, ratios = "median distance", ours / theirs
        ratios = torch.where(ours == theirs, 1.0, ratios)  # both found nothing
        ratio = float(ratios.median())
        mine, other = float(ours.median()), float(theirs.median())
    else:
        measure, mine, other = "robust", float(ours), float(theirs)
        ratio = mine / other if other else float(mine == other)
    return {
        "attack": attack, "reference": reference, "model": MODEL, "norm": norm, "measure": measure,
        "ours": mine, "theirs": other, "ratio": ratio, "samples": len(subject().x),
    }  # fmt: skip


def _distance(found: AttackResult, norm: AnyNorm) -> Tensor:
    return distance_of(found, subject().x, ThreatModel.box(norm, FAR))


def _minimal(
    attack: Callable[..., AttackResult], config: object, norm: AnyNorm, name: str, options: Row
) -> Row:
    """A search for the nearest beside one of foolbox."""
    threat = ThreatModel.box(norm, FAR)
    ours = _distance(attack(*subject().given, threat, config, SEED, minimal=True), norm)
    theirs = _distance(by_foolbox(name, norm, FAR, options), norm)
    return row(attack.__name__.replace("_", "-"), f"foolbox {name}", norm, ours, theirs)


def _pgd(norm: Norm, name: str) -> Row:
    threat, config = (
        ThreatModel.box(norm, EPS[norm]),
        PGDConfig(restarts=1, step_size=0.25 * EPS[norm]),
    )
    ours = left(pgd(*subject().given, threat, config, SEED))
    theirs = left(by_foolbox(name, norm, EPS[norm], {"steps": 40, "rel_stepsize": 0.25}))
    return row("pgd", f"foolbox {name}", norm, ours, theirs)


def _fab(norm: Norm) -> Row:
    threat, config = ThreatModel.box(norm, FAR), FABConfig(50, targets=3)
    ours = _distance(fab(*subject().given, threat, config, SEED, minimal=True), norm)
    return row("fab", "AutoAttack FAB-T", norm, ours, their_fab(norm, 50, 3))


def _square(norm: Norm) -> Row:
    threat, config = ThreatModel.box(norm, EPS[norm]), SquareConfig(1000)
    ours = left(square(*subject().given, threat, config, SEED))
    return row("square", "AutoAttack Square", norm, ours, their_square(norm, 1000))


def _hop_skip_jump(norm: Norm) -> Row:
    theirs = by_foolbox("HopSkipJumpAttack", norm, FAR, {"steps": 6})
    config = HopSkipJumpConfig(int(theirs.forwards.double().median()))
    threat = ThreatModel.box(norm, FAR)
    found = hop_skip_jump(*subject().given, threat, config, SEED, minimal=True)
    return row(
        "hop-skip-jump", f"foolbox HopSkipJumpAttack, {config.queries} queries", norm,
        _distance(found, norm), _distance(theirs, norm),
    )  # fmt: skip


def others() -> Iterator[Case]:
    """One line for each attack and norm."""
    for norm, name in (("linf", "LinfPGD"), ("l2", "L2PGD"), ("l1", "L1PGD")):
        yield f"pgd {norm}", lambda n=norm, f=name: _pgd(n, f)
    for norm in NORMS:
        yield f"fab {norm}", lambda n=norm: _fab(n)
    for norm in NORMS:
        yield f"square {norm}", lambda n=norm: _square(n)
    steps = {"steps": 100}
    fmns: tuple[tuple[Norm, str], ...] = (
        ("linf", "LInfFMNAttack"), ("l2", "L2FMNAttack"), ("l1", "L1FMNAttack"),
    )  # fmt: skip
    for norm, name in fmns:
        yield f"fmn {norm}", lambda n=norm, f=name: _minimal(fmn, FMNConfig(), n, f, steps)
    short = FMNConfig(alpha=0.15)  # closer to foolbox's 1 of distance, and worse on linear models
    yield (
        "fmn, alpha 0.15 l1",
        lambda: _minimal(fmn, short, "l1", "L1FMNAttack", steps) | {"attack": "fmn, alpha 0.15"},
    )
    yield "ddn l2", lambda: _minimal(ddn, DDNConfig(radius=1.0), "l2", "DDNAttack", steps)
    yield "pdpgd l1", lambda: _minimal(pdpgd, PDPGDConfig(), "l1", "L1FMNAttack", {"steps": 500})
    config = SigmaZeroConfig(300)
    yield "sigma-zero l0", lambda: _minimal(sigma_zero, config, "l0", "L0FMNAttack", {"steps": 300})
    for norm in ("linf", "l2"):
        yield f"hop-skip-jump {norm}", lambda n=norm: _hop_skip_jump(n)


# closed forms ------------------------------------------------------------------------------------


def linear() -> Iterator[Case]:
    """Searches for the nearest, on linear models."""
    found: tuple[tuple[Callable[..., AttackResult], Any, tuple[AnyNorm, ...]], ...] = (
        (fab, FABConfig(50, targets=9), NORMS),
        (fmn, FMNConfig(targets=9), NORMS),
        (ddn, DDNConfig(300, radius=0.1, loss="margin", targets=9), ("l2",)),
        (pdpgd, PDPGDConfig(targets=9), ("l1",)),
        (sigma_zero, SigmaZeroConfig(300, targets=9), ("l0",)),
    )
    for attack, config, norms in found:
        for norm in norms:
            for classes in (2, 3, 5):

                def measure(
                    a: Any = attack, c: Any = config, n: Any = norm, k: int = classes
                ) -> Row:
                    def run(
                        classifier: Any, x: Any, y: Any, ids: Any, threat: Any, minimal: bool
                    ) -> Any:
                        return a(classifier, x, y, ids, threat, c, SEED, minimal=minimal)

                    name = a.__name__.replace("_", "-")
                    share = linear_share(run, n, k)
                    return {"attack": name, "norm": n, "classes": k, "within": share}

                yield f"{attack.__name__} {norm} {classes}", measure


def relu_row(net: int, norm: Norm) -> Row:
    """The nearest adversarial examples of one small net beside the exact ones."""
    features, classes = 2 + net % 3, 2 + net % 2
    module, weights, x, y = network(FIRST_NET + net, features, classes, OF_NET)

    def run(classifier: Any, x: Any, y: Any, ids: Any, threat: Any, minimal: bool) -> Any:
        return nearest(classifier, x, y, ids, threat, NearestConfig(), SEED)

    found = measured(run, module, x, y, ThreatModel.box(norm, FAR))
    zero, one = np.zeros(features), np.ones(features)
    rows = zip(x.double().numpy(), y, strict=True)
    exact = np.array([relu_distance(norm, weights, r, int(own), zero, one) for r, own in rows])
    if (found < exact * (1 - 1e-6)).any():
        raise AssertionError(f"net {net}, {norm}: nearer than possible")
    share = float((found <= 1.01 * exact).mean())
    return {"net": net, "features": features, "classes": classes, "norm": norm, "within": share}


def relu() -> Iterator[Case]:
    """Every net and norm."""
    for net in range(NETS):
        for norm in NORMS:
            yield f"{net} {norm}", lambda k=net, n=norm: relu_row(k, n)

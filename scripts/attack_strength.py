"""Makes docs/attack-strength.md: each attack beside a reference implementation or a closed form.

    pip install -e ".[compare]" foolbox        AutoAttack itself, as packaged by others, and foolbox
    python scripts/attack_strength.py          everything that is not done yet (an hour or more)
    python scripts/attack_strength.py relu     one part (apgd, others, linear, fixed, relu, simple)
    python scripts/attack_strength.py --table  the page from what is done so far, without any work

Both sides run on the same samples. Results are kept in docs/attack-strength.json as they come, and
the page is read off them; it ends with the rows that were not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attack_fixed import fixed, simple
from attack_page import FORMS, SAMPLES, STEPS, page
from attack_references import Subject, linear, others, relu
from torch import Tensor

from attacks.apgd import APGDConfig, Projection, method_of
from attacks.classifier import exact_passes
from attacks.driver import distances
from attacks.lanes import Lanes, Method, State, drive
from attacks.losses import LossName, attack_loss
from attacks.problem import Problem
from attacks.threat import Norm, ThreatModel
from robustbench_c.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGE, KEPT = ROOT / "docs" / "attack-strength.md", ROOT / "docs" / "attack-strength.json"
SEED = 0
EPS: dict[str, dict[Norm, float]] = {
    "fmnist-cnn-pgd": {"linf": 0.1, "l2": 1.5, "l1": 12.0},
    "fmnist-cnn-ibp": {"linf": 0.1},
    "fmnist-cnn-standard": {"linf": 0.02, "l2": 0.3, "l1": 3.0},
    "fmnist-cnn-sparsevlr-95": {"linf": 0.1},
}
LOSSES: tuple[tuple[LossName, bool], ...] = (
    ("ce", False),
    ("dlr", False),
    ("dlr", True),
    ("probability-margin", False),
)
Row = dict[str, Any]
Case = tuple[str, Callable[[], Row]]
"""A name of its own and what measures it."""


class Noted(Method):
    """A method whose starting points, and legal points of the highest loss, are kept."""

    def __init__(self, method: Method, x: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.method, self.measure = method, loss
        self.name, self.runs, self.steps = method.name, method.runs, method.steps
        self.strays = method.strays
        self.starts, self.best = x.clone(), x.clone()
        self.highest = torch.full((len(x),), -torch.inf, dtype=torch.float64)

    def begin(self, lanes: Lanes) -> State:
        """As the method."""
        state = self.method.begin(lanes)
        self.starts[lanes.sample] = state["point"]
        return state

    def loss(self, lanes: Lanes, logits: Tensor) -> Tensor:
        """As the method."""
        return self.method.loss(lanes, logits)

    def move(self, lanes: Lanes, logits: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """As the method, after a look at the point."""
        point, threat = lanes.state["point"], lanes.problem.threat
        found = self.measure(logits, lanes.sample)
        higher = lanes.live & (found > self.highest[lanes.sample])
        if self.strays:
            higher &= distances(lanes.ball.x, point, threat) <= threat.eps
        rows = lanes.sample[higher]
        self.highest[rows], self.best[rows] = found[higher], point[higher]
        self.method.move(lanes, logits, loss, gradient)


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest probability of another class less that of the true one, for their attack."""
    p = F.softmax(logits, 1)
    return p.scatter(1, y[:, None], -1.0).amax(1) - p.gather(1, y[:, None])[:, 0]


def their_apgd(
    subject: Subject, norm: Norm, eps: float, loss: LossName, target: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Their best points by loss from the same starts, and whether a point on the way was wrong."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted, L1_projection

    kind = APGDAttack if target is None else APGDAttack_targeted
    own = loss == "probability-margin"  # which they do not have: put in the place of their DLR
    more = {"loss": "dlr" if own else loss} if target is None else {}
    module, x, y = subject.classifier.module, subject.x, subject.y
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    attack = kind(module, n_iter=STEPS, norm=name, eps=eps, seed=SEED, **more)
    attack.init_hyperparam(x)
    attack.y_target = target
    if own:
        attack.dlr_loss = probability_margin
    if norm != "l1":
        best, right, _, _ = attack.attack_single_run(x, y, x_init=start)
        return best, ~right.bool()
    for factor, steps in ((3.0, 30), (2.0, 30), (1.0, 40)):
        attack.n_iter, attack.eps = steps * STEPS // 100, factor * eps
        start = start + L1_projection(x, start - x, attack.eps)
        start, right, _, _ = attack.attack_single_run(x, y, x_init=start)
    return start, ~right.bool()


def apgd_row(
    subject: Subject, norm: Norm, loss: LossName, targeted: bool, projection: Projection
) -> Row:
    """One line: the highest loss of each sample, ours and theirs."""
    eps = EPS[subject.name][norm]
    threat = ThreatModel.box(norm, eps)
    problem = Problem(*subject.given, threat, SEED, active_set=False)
    classes = problem.clean.shape[1]
    target = problem.ranked[:, 0] if targeted else None
    aim = subject.y if target is None else target
    function = attack_loss(loss, classes, targeted)

    def measure(logits: Tensor, rows: Tensor) -> Tensor:
        if loss == "ce":  # ours shrinks logits that range far, for its gradient
            return F.cross_entropy(logits.double(), subject.y[rows], reduction="none")
        return function(logits, subject.y[rows], aim[rows]).double()

    table = None if target is None else target[:, None]
    config = APGDConfig(STEPS, loss=loss, targets=int(targeted), projection=projection)
    method = Noted(method_of(config, threat, classes, table), subject.x, measure)
    broken = drive(problem, method).found
    start = method.starts
    best, theirs_broken = their_apgd(subject, norm, eps, loss, target, start.clone())
    mine, theirs = (
        measure(subject.classifier.logits(points), torch.arange(len(points)))
        for points in (method.best, best.detach())
    )
    return {
        "model": subject.name,
        "norm": norm,
        "eps": eps,
        "loss": loss + ("-targeted" if targeted else ""),
        "projection": projection,
        "right": len(subject.x),
        "ours": float(mine.mean()),
        "theirs": float(theirs.mean()),
        "within": float((mine >= theirs - 0.01 * theirs.abs()).double().mean()),
        "robust": [int((~broken).sum()), int((~theirs_broken).sum())],
    }


@cache
def subject_of(name: str) -> Subject:
    """A model, once."""
    return Subject(name, SAMPLES)


def apgd() -> Iterator[Case]:
    """Every model, norm, projection and loss."""
    for name in EPS:
        for norm in EPS[name]:
            forms: tuple[Projection, ...] = ("exact", "shrink") if norm == "l2" else ("exact",)
            for form, (loss, targeted) in product(forms, LOSSES):
                given = (norm, loss, targeted, form)
                words = f"{name} {norm} {loss}{'-targeted' * targeted}"
                yield (
                    words + f" {FORMS[form]}" * (form != "exact"),
                    lambda n=name, g=given: apgd_row(subject_of(n), *g),
                )


PARTS: dict[str, Callable[[], Iterator[Case]]] = {
    "apgd": apgd,
    "others": others,
    "linear": linear,
    "fixed": fixed,
    "relu": relu,
    "simple": simple,
}


def names() -> dict[str, list[str]]:
    """Every row that there is to measure, part by part."""
    return {part: [name for name, _ in cases()] for part, cases in PARTS.items()}


def main() -> None:
    """Measure what is named and not done yet, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [all]")
    parser.add_argument("--table", action="store_true", help="write the page of what is done")
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"no part '{unknown[0]}': there are {', '.join(PARTS)}")
    chosen = [] if given.table else given.parts or list(PARTS)
    if {"apgd", "others"} & set(chosen) and find_spec("pyautoattack") is None:
        parser.error("AutoAttack is not installed: pip install -e '.[compare]'")
    kept: dict[str, dict[str, Row]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept = {part: kept.get(part, {}) for part in PARTS}
    for part in chosen:
        for name, measure in PARTS[part]():
            if name in kept[part]:
                continue
            with exact_passes():
                kept[part][name] = measure()
            write_atomically(KEPT, (json.dumps(kept, indent=1) + "\n").encode())
            sys.stderr.write(f"{name}: {kept[part][name]}\n")
    write_atomically(PAGE, page(kept, names()).encode())


if __name__ == "__main__":
    main()

"""Makes docs/attack-strength.md: each attack beside a reference implementation or a closed form.

    pip install -e ".[compare]" foolbox        AutoAttack itself, as packaged by others, and foolbox
    python scripts/attack_strength.py          everything that is not done yet (an hour or more)
    python scripts/attack_strength.py relu     one part: apgd, others, linear, relu
    python scripts/attack_strength.py --table  the page from what is done so far, without any work

Both sides run on the same samples. Results are kept in docs/attack-strength.json as they come, and
the page is read off them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attack_references import Subject, linear, others, relu
from torch import Tensor

from attacks.apgd import APGDConfig, method_of
from attacks.classifier import exact_passes
from attacks.driver import distances
from attacks.lanes import Lanes, Method, State, drive
from attacks.losses import LossName, attack_loss
from attacks.problem import Problem
from attacks.threat import Norm, ThreatModel
from robustbench_c.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGE, KEPT = ROOT / "docs" / "attack-strength.md", ROOT / "docs" / "attack-strength.json"
SEED, STEPS, SAMPLES = 0, 100, 100
EPS: dict[str, dict[Norm, float]] = {
    "fmnist-cnn-pgd": {"linf": 0.1, "l2": 1.5, "l1": 12.0},
    "fmnist-cnn-ibp": {"linf": 0.1},
    "fmnist-cnn-standard": {"linf": 0.02, "l2": 0.3, "l1": 3.0},
    "fmnist-cnn-sparsevlr-95": {"linf": 0.1},
}
LOSSES: tuple[tuple[LossName, bool], ...] = (("ce", False), ("dlr", False), ("dlr", True))
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


def their_apgd(
    subject: Subject, norm: Norm, eps: float, loss: LossName, target: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor]:
    """Their best points by loss from the same starts, and whether a point on the way was wrong."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted, L1_projection

    kind = APGDAttack if target is None else APGDAttack_targeted
    more = {"loss": loss} if target is None else {}
    module, x, y = subject.classifier.module, subject.x, subject.y
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    attack = kind(module, n_iter=STEPS, norm=name, eps=eps, seed=SEED, **more)
    attack.init_hyperparam(x)
    attack.y_target = target
    if norm != "l1":
        best, right, _, _ = attack.attack_single_run(x, y, x_init=start)
        return best, ~right.bool()
    for factor, steps in ((3.0, 30), (2.0, 30), (1.0, 40)):
        attack.n_iter, attack.eps = steps * STEPS // 100, factor * eps
        start = start + L1_projection(x, start - x, attack.eps)
        start, right, _, _ = attack.attack_single_run(x, y, x_init=start)
    return start, ~right.bool()


def apgd_row(subject: Subject, norm: Norm, loss: LossName, targeted: bool) -> Row:
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
    config = APGDConfig(STEPS, loss=loss, targets=int(targeted))
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
    """Every model, norm and loss."""
    for name in EPS:
        for norm in EPS[name]:
            for loss, targeted in LOSSES:

                def measure(
                    n: str = name, p: Norm = norm, a: LossName = loss, t: bool = targeted
                ) -> Row:
                    return apgd_row(subject_of(n), p, a, t)

                yield f"{name} {norm} {loss}{'-targeted' * targeted}", measure


# the page ----------------------------------------------------------------------------------------

INTRO = f"""# Attack strength

Made by `scripts/attack_strength.py`, in one process on the same samples for both sides.
AutoAttack is pyautoattack 0.2, foolbox is 3.3.

## APGD beside AutoAttack's

{STEPS} steps from the same starts, on those of the first {SAMPLES} test images that are right.
*Ours* and *AutoAttack's*: mean over the samples of the highest loss met. *Within*: share of samples
where ours is at most 1% lower. *Robust*: samples without a wrong point on the way. DLR has no
bound: where the three largest logits nearly tie, one sample can carry the mean. In L1 the two often
end in different maxima, some higher and some lower, and are not equal in this sense.

| model | norm | eps | loss | right | ours | AutoAttack's | within | robust: ours | AutoAttack's |
|---|---|---|---|---|---|---|---|---|---|
"""
OTHER = """
## The other attacks

*Ratio*: ours to the reference's, where less is stronger (of distances: median of the samples' own
ratios).

| attack | reference | model | norm | measure | ours | reference's | ratio |
|---|---|---|---|---|---|---|---|
"""
CLOSED = """
## Linear models

32 samples each, with features that have units, a box of their own and one that is held: share of
samples whose distance is within 1% of the exact one. None is below it, or the run would have ended.

| attack | norm | classes | within 1% |
|---|---|---|---|
"""
ENUMERATED = """
## Small ReLU nets

The search for the nearest adversarial example (`attacks.nearest`, its defaults) on nets of random
weights with 8 hidden neurons, whose exact distances come from one programme for each pattern of
active neurons: 32 samples of each net. None is below the exact distance.

| net | features | classes | Linf within 1% | L2 | L1 |
|---|---|---|---|---|---|
"""


def cells(*values: object) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, values)) + " |\n"


def page(kept: dict[str, dict[str, Row]]) -> str:
    """The page of what is kept."""
    text = INTRO
    for r in kept.get("apgd", {}).values():
        losses = (f"{r['ours']:.4f}", f"{r['theirs']:.4f}", f"{r['within']:.0%}")
        text += cells(
            r["model"], r["norm"], f"{r['eps']:g}", r["loss"], r["right"], *losses, *r["robust"]
        )
    text += OTHER
    for r in kept.get("others", {}).values():
        names = (r["attack"], r["reference"], r["model"], r["norm"], r["measure"])
        text += cells(*names, f"{r['ours']:.4g}", f"{r['theirs']:.4g}", f"{r['ratio']:.3f}")
    text += CLOSED
    for r in kept.get("linear", {}).values():
        text += cells(r["attack"], r["norm"], r["classes"], f"{r['within']:.0%}")
    if not kept.get("relu"):
        return text
    text += ENUMERATED
    nets: dict[int, Row] = {}
    for r in kept["relu"].values():
        nets.setdefault(r["net"], {**r})[r["norm"]] = r["within"]
    norms = ("linf", "l2", "l1")
    for net, r in nets.items():
        shares = (f"{r[norm]:.1%}" if norm in r else "" for norm in norms)
        text += cells(net, r["features"], r["classes"], *shares)
    pooled = {n: [r[n] for r in nets.values() if n in r] for n in norms}
    means = (f"{sum(v) / len(v):.1%}" if v else "" for v in pooled.values())
    return text + cells("all", "", "", *means)


def main() -> None:
    """Measure what is named and not done yet, and write the page."""
    parts: dict[str, Callable[[], Iterator[Case]]] = {
        "apgd": apgd, "others": others, "linear": linear, "relu": relu,
    }  # fmt: skip
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)} [all]")
    parser.add_argument("--table", action="store_true", help="write the page of what is done")
    given = parser.parse_args()
    if unknown := [name for name in given.parts if name not in parts]:
        parser.error(f"no part '{unknown[0]}': there are {', '.join(parts)}")
    chosen = [] if given.table else given.parts or list(parts)
    if {"apgd", "others"} & set(chosen) and find_spec("pyautoattack") is None:
        parser.error("AutoAttack is not installed: pip install -e '.[compare]'")
    kept: dict[str, dict[str, Row]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for part in chosen:
        for name, measure in parts[part]():
            if name in kept.setdefault(part, {}):
                continue
            with exact_passes():
                kept[part][name] = measure()
            write_atomically(KEPT, (json.dumps(kept, indent=1) + "\n").encode())
            sys.stderr.write(f"{name}: {kept[part][name]}\n")
    write_atomically(PAGE, page(kept).encode())


if __name__ == "__main__":
    main()

"""What every attack promises, as checks that raise AssertionError, and small models to hold to it.

The geometry here is numpy in float64 and shares nothing with the code under test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.pgd import PGDConfig, pgd
from attacks.registry import AttackConfig, kind_of
from attacks.result import AttackResult
from attacks.threat import NORMS, Norm, ThreatModel

__all__ = ["MODELS", "NORMS", "Case", "Norm"]

_ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


def reach(norm: Norm, slope: np.ndarray, cap: np.ndarray, eps: float) -> float:
    """Largest value of `slope . z` with norm(z) <= eps, 0 <= z <= cap, for `slope >= 0`."""
    if norm == "linf":
        return float(slope @ np.minimum(cap, eps))
    if norm == "l0":
        return float(np.sort(slope * cap)[::-1][: int(eps)].sum())
    if norm == "l1":  # greedy: the steepest feature first, up to its cap
        order = np.argsort(-slope, kind="stable")
        before = np.concatenate([[0.0], np.cumsum(cap[order])[:-1]])
        return float(slope[order] @ np.clip(eps - before, 0.0, cap[order]))
    # min(t slope, cap) for the t that fits: the features that reach their cap first, sorted
    slope, cap = slope[slope > 0], cap[slope > 0]
    if np.linalg.norm(cap) <= eps:
        return float(slope @ cap)
    order = np.argsort(cap / slope)
    slope, cap = slope[order], cap[order]
    left = eps**2 - np.concatenate([[0.0], np.cumsum(cap**2)[:-1]])
    t = np.sqrt(np.maximum(left, 0.0) / np.cumsum(slope[::-1] ** 2)[::-1])
    return float(slope @ np.minimum(t[np.argmax(t * slope <= cap)] * slope, cap))


# models ------------------------------------------------------------------------------------------


def _cnn(act: Callable[[], nn.Module], norm: bool = False) -> nn.Module:
    def block(before: int, after: int) -> list[nn.Module]:
        conv = nn.Conv2d(before, after, 4, stride=2, padding=1)
        return [conv, nn.BatchNorm2d(after), act()] if norm else [conv, act()]

    return nn.Sequential(
        *block(1, 4), *block(4, 8), nn.Flatten(), nn.Linear(72, 20), act(), nn.Linear(20, 5)
    )


def _mlp(act: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(9, 16), act(), nn.Linear(16, 16), act(), nn.Linear(16, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn-small": (lambda: _cnn(nn.ReLU), (1, 12, 12)),
    "cnn-batch-norm": (lambda: _cnn(nn.ReLU, norm=True), (1, 12, 12)),
    "mlp": (lambda: _mlp(nn.ReLU), (9,)),
    "mlp-sigmoid": (lambda: _mlp(nn.Sigmoid), (9,)),
    "cnn-gelu": (lambda: _cnn(nn.GELU), (1, 12, 12)),
}
_EPS: dict[str, dict[Norm, float]] = {  # a part of the samples breaks, a part does not
    "cnn-small": {"linf": 0.012, "l2": 0.1, "l1": 0.6, "l0": 1.0},
    "cnn-batch-norm": {"linf": 0.012, "l2": 0.1, "l1": 0.6},
    "mlp": {"linf": 0.08, "l2": 0.2, "l1": 0.3, "l0": 1.0},
    "mlp-sigmoid": {"linf": 0.08, "l2": 0.2, "l1": 0.3},
    "cnn-gelu": {"linf": 0.012, "l2": 0.1, "l1": 0.6},
}


@dataclass(frozen=True, eq=False)
class Case:
    """A model, samples that it gets right, and an attack on them."""

    module: nn.Module
    x: Tensor
    y: Tensor
    ids: Tensor
    threat: ThreatModel
    config: AttackConfig = field(
        default_factory=lambda: PGDConfig(steps=5, restarts=2, loss="margin")
    )
    tiles: tuple[int, ...] = (32,)
    active_set: bool = True
    invariant: bool = True  # False: no restart ends before its last step
    seed: int = 3

    @classmethod
    def make(cls, name: str, norm: Norm, n: int = 90) -> Case:
        """A random model with logits centred over the samples, so that classes are in play."""
        build, shape = MODELS[name]
        with torch.random.fork_rng():
            torch.manual_seed(1)
            module = build()
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean = torch.randn(layer.num_features) * 0.1
                    layer.running_var = torch.rand(layer.num_features) * 0.2 + 0.05
            x = torch.rand(n, *shape)
            ids = torch.randperm(10 * n)[:n]
        module = module.eval().requires_grad_(False)
        last = [layer for layer in module if isinstance(layer, nn.Linear)][-1]  # type: ignore[union-attr]
        logits = TiledClassifier(module).logits(x)
        last.bias -= logits.mean(0)
        y = TiledClassifier(module).logits(x).argmax(1)
        spread = float((logits - logits.mean(0)).std())
        last.weight.mul_(1 / spread)
        last.bias.mul_(1 / spread)
        return cls(module, x, y, ids, ThreatModel.box(norm, _EPS[name][norm]))

    def rows(self, rows: Tensor) -> Case:
        return replace(self, x=self.x[rows], y=self.y[rows], ids=self.ids[rows])

    def run(self) -> AttackResult:
        classifier = TiledClassifier(self.module, self.tiles, self.invariant)
        if not isinstance(self.config, PGDConfig):
            given = (self.x, self.y, self.ids, self.threat, self.config, self.seed)
            return kind_of(self.config).run(classifier, *given)
        return pgd(
            classifier,
            self.x,
            self.y,
            self.ids,
            self.threat,
            self.config,
            self.seed,
            active_set=self.active_set,
        )


# checks ------------------------------------------------------------------------------------------


def check_inside(threat: ThreatModel, x: Tensor, other: Tensor) -> None:
    """Norm, box and immutable features, without a bit of tolerance."""
    clean, moved = x.numpy(), other.numpy()
    assert moved.dtype == np.float32
    assert (moved >= threat.lower.numpy()).all(), "below the box"
    assert (moved <= threat.upper.numpy()).all(), "above the box"
    if threat.immutable is not None:
        held = np.broadcast_to(threat.immutable.numpy(), clean.shape)
        assert (clean.view(np.int32)[held] == moved.view(np.int32)[held]).all(), "immutable moved"
    difference = moved.astype(np.float64) - clean.astype(np.float64)
    if threat.scale is not None:
        difference = difference / threat.scale.numpy().astype(np.float64)
    norms = np.linalg.norm(difference.reshape(len(clean), -1), _ORDER[threat.norm], axis=1)
    assert (norms <= threat.eps).all(), f"norm {norms.max()!r} beyond eps {threat.eps!r}"


def check_honest(case: Case, result: AttackResult) -> None:
    """A find is legal and misclassified, the rest is untouched, and the books add up."""
    check_inside(case.threat, case.x, result.adversarial)
    steps, restarts = case.config.steps, case.config.restarts
    found = result.found
    logits = TiledClassifier(case.module).logits(result.adversarial)
    assert (logits.argmax(1) != case.y)[found].all(), "a find is classified rightly"
    assert torch.equal(result.adversarial[~found], case.x[~found])
    assert (result.restart[~found] == -1).all()
    assert (result.iteration[~found] == -1).all()
    assert ((result.restart >= 0) & (result.restart < restarts))[found].all()
    assert ((result.iteration >= 0) & (result.iteration <= steps))[found].all()
    assert torch.equal(result.lowest < 0, found), "found is: a margin below 0 was met"
    spent = torch.where(
        found, result.restart * (steps + 1) + result.iteration + 1, restarts * (steps + 1)
    )
    tries = torch.where(found, result.restart + 1, restarts)
    if case.invariant:  # a restart that goes back and forth ends after the gradient that shows it
        early = spent - result.forwards
        assert (early >= 0).all(), "forward passes miscounted"
        unused = result.forwards - result.backwards
        assert ((unused >= 0) & (unused <= tries)).all(), "gradients miscounted"
        assert torch.equal(unused < tries, early > 0), "passes saved for no reason"
    else:
        assert torch.equal(result.forwards, spent), "forward passes miscounted"
        assert torch.equal(result.backwards, spent - tries), "gradients miscounted"
    assert not result.not_finite.any()


def check_legal(case: Case, result: AttackResult) -> None:
    """A find is legal and misclassified, and the rest is untouched: of any attack."""
    check_inside(case.threat, case.x, result.adversarial)
    logits = TiledClassifier(case.module).logits(result.adversarial)
    assert (logits.argmax(1) != case.y)[result.found].all(), "a find is classified rightly"
    assert torch.equal(result.adversarial[~result.found], case.x[~result.found])
    assert torch.equal(result.lowest < 0, result.found), "found is: a margin below 0 was met"


def check_same(
    one: AttackResult,
    two: AttackResult,
    rows: Tensor | None = None,
    but: tuple[str, ...] = ("seconds",),
) -> None:
    """Equality of `two` with the given rows of `one`, bit for bit, in all fields `but` some."""
    for name in (part.name for part in fields(AttackResult) if part.name not in but):
        ours, theirs = getattr(one, name), getattr(two, name)
        ours = ours if rows is None else ours[rows]
        if ours.dtype == torch.float32:
            ours, theirs = ours.view(torch.int32), theirs.view(torch.int32)
        assert torch.equal(ours, theirs), f"{name} differs"


def check_order_free(case: Case, whole: AttackResult, seed: int) -> None:
    """A shuffled subset gives the very rows of the whole."""
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, len(case.x) + 1, (1,), generator=generator))
    rows = torch.randperm(len(case.x), generator=generator)[:count]
    check_same(whole, case.rows(rows).run(), rows)


def check_early_ends(case: Case) -> AttackResult:
    """Restarts that end because they repeat themselves save passes and change nothing else."""
    full = replace(case, invariant=False).run()
    check_honest(replace(case, invariant=False), full)
    short = case.run()
    check_honest(case, short)
    check_same(full, short, but=("seconds", "forwards", "backwards"))
    return short


def check_active_set(case: Case) -> None:
    """Broken samples that stay to the end change nothing."""
    check_same(replace(case, active_set=False).run(), case.run())

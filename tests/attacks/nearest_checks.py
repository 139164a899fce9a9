"""The exact distance of the nearest adversarial example, by other means than the attacks'.

Linear models: by bisection on the largest change a perturbation of a given norm can make. Small
ReLU nets: by one linear or quadratic programme for each pattern of active neurons and each class.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from attack_checks import Case, Norm, check_inside, check_same, reach
from scipy.optimize import linprog, nnls
from torch import Tensor, nn

from attacks.classifier import TiledClassifier
from attacks.driver import recheck
from attacks.result import AttackResult
from attacks.threat import ThreatModel

Array = np.ndarray
Net = tuple[Array, Array, Array, Array]
"""W, b, V, c of the logits `V relu(W x + b) + c`."""
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def linear_distance(
    norm: Norm, weight: Array, bias: Array, x: Array, y: int, low: Array, high: Array, unit: Array
) -> float:
    """For logits `weight @ x + bias`, in units; infinite where the box lets no class win."""
    best = np.inf
    for other in range(len(weight)):
        if other == y:
            continue
        pull = (weight[other] - weight[y]) * unit
        gap = (weight[y] - weight[other]) @ x + bias[y] - bias[other]
        cap = np.where(pull > 0, high - x, x - low) / unit
        near, far = 0.0, float(cap.sum()) + 1.0
        if reach(norm, np.abs(pull), cap, far) < gap:
            continue
        for _ in range(60):
            middle = (near + far) / 2
            beyond = reach(norm, np.abs(pull), cap, middle) >= gap
            near, far = (near, middle) if beyond else (middle, far)
        best = min(best, far)
    return best


def network(seed: int, d: int, classes: int, n: int) -> tuple[nn.Module, Net, Tensor, Tensor]:
    """Eight neurons that bend inside [0, 1]^d, classes in balance; samples, their classes."""
    rng = np.random.default_rng(seed)
    W, V = rng.normal(size=(8, d)), rng.normal(size=(classes, 8))
    b = -(W * rng.uniform(size=(8, d))).sum(1)
    x = rng.uniform(size=(n, d)).astype(np.float32)
    c = -np.maximum(x @ W.T + b, 0.0).mean(0) @ V.T
    module = nn.Sequential(nn.Linear(d, 8), nn.ReLU(), nn.Linear(8, classes)).eval()
    for parameter, values in zip(
        module.requires_grad_(False).parameters(), (W, b, V, c), strict=True
    ):
        parameter.copy_(torch.tensor(values))
    exact = [parameter.double().numpy() for parameter in module.parameters()]
    samples = torch.tensor(x)
    return module, (exact[0], exact[1], exact[2], exact[3]), samples, module(samples).argmax(1)


def relu_distance(norm: Norm, net: Net, x: Array, y: int, low: Array, high: Array) -> float:
    """Exact distance, one programme for each pattern of active neurons and each other class.

    Patterns are those of the box around `x` that holds the nearest of some adversarial examples.
    """
    W, b, V, c = net
    rng = np.random.default_rng(0)
    best = _some_distance(norm, net, x, y, low + (high - low) * rng.uniform(size=(2000, len(x))))
    low, high = np.maximum(low, x - best) - x, np.minimum(high, x + best) - x
    b = W @ x + b
    middle, spread = b + W @ (low + high) / 2, np.abs(W) @ (high - low) / 2
    free = np.abs(middle) < spread
    for signs in product((0.0, 1.0), repeat=int(free.sum())):
        on = (middle > 0).astype(float)
        on[free] = signs
        flip = 1 - 2 * on[free, None]
        M, m = V @ (on[:, None] * W), V @ (on * b) + c
        for other in set(range(len(V))) - {y}:
            A = np.vstack([flip * W[free], (M[y] - M[other])[None]])
            r = np.append(-flip[:, 0] * b[free], m[other] - m[y])
            best = min(best, _shortest(norm, A, r, low, high, best))
    return best


def _some_distance(norm: Norm, net: Net, x: Array, y: int, points: Array) -> float:
    """Distance of an adversarial example, from lines between `points` and `x`."""
    W, b, V, c = net

    def wrong(inputs: Array) -> Array:
        return (np.maximum(inputs @ W.T + b, 0.0) @ V.T + c).argmax(1) != y

    far = points[wrong(points)]
    near = np.broadcast_to(x, far.shape)
    for _ in range(12):
        middle = (near + far) / 2
        beyond = wrong(middle)[:, None]
        near, far = np.where(beyond, near, middle), np.where(beyond, middle, far)
    return float(np.linalg.norm(far - x, ORDER[norm], axis=1).min(initial=np.inf))


def _shortest(norm: Norm, A: Array, r: Array, low: Array, high: Array, best: float) -> float:
    """Least norm of `z` with `A z <= r` and `low <= z <= high`; infinite if that is not < `best`.

    L2 by least-distance programming (Lawson and Hanson, Solving least squares problems, ch. 23),
    Linf and L1 by linear programming, where the L2 norm allows it to be smaller.
    """
    d = len(low)
    G, h = np.vstack([-A, np.eye(d), -np.eye(d)]), np.concatenate([-r, low, -high])
    E = np.vstack([G.T, h])
    residual = E @ nnls(E, np.eye(d + 1)[d])[0] - np.eye(d + 1)[d]
    if np.linalg.norm(residual) < 1e-9:
        return np.inf
    euclidean = float(np.linalg.norm(residual[:d] / residual[d]))
    if norm == "l2" or euclidean / (np.sqrt(d) if norm == "linf" else 1.0) >= best:
        return euclidean if norm == "l2" else np.inf
    pick = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    sides = np.block(
        [[A, np.zeros((len(A), pick.shape[1]))], [np.eye(d), -pick], [-np.eye(d), -pick]]
    )
    bounds = [*zip(low, high, strict=True), *[(0.0, None)] * pick.shape[1]]
    cost = np.append(np.zeros(d), np.ones(pick.shape[1]))
    found = linprog(cost, sides, np.append(r, np.zeros(2 * d)), bounds=bounds)
    return float(found.fun) if found.status == 0 else np.inf


# what each attack promises -----------------------------------------------------------------------

Attack = Callable[[TiledClassifier, Tensor, Tensor, Tensor, ThreatModel, bool], AttackResult]
"""An attack with its settings: classifier, x, y, ids, threat, whether the nearest is looked for."""
FAR = 1e6


def frozen_linear(weight: Array, bias: Array) -> nn.Linear:
    module = nn.Linear(weight.shape[1], len(weight)).eval().requires_grad_(False)
    module.weight.copy_(torch.tensor(weight))
    module.bias.copy_(torch.tensor(bias))
    return module


def nearest(attack: Attack, module: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Array:
    """Distances that the attack finds, measured by the judge; infinite where it finds nothing."""
    classifier = TiledClassifier(module)
    result = attack(classifier, x, y, torch.arange(len(x)), threat, True)
    check_inside(threat, x, result.adversarial)
    judged = recheck(classifier, None, x, result.adversarial, y, threat)
    assert torch.equal(judged.broken, result.found), "the judge disagrees"
    return torch.where(result.found, judged.distance, torch.inf).numpy()


def share_within(found: Array, exact: Array) -> float:
    """Share of samples within 1% of the exact distance; raises if any is below it."""
    assert np.isinf(found[np.isinf(exact)]).all(), "found where there is nothing"
    found, exact = found[np.isfinite(exact)], exact[np.isfinite(exact)]
    assert len(exact) > 20
    assert (found >= exact * (1 - 1e-6)).all(), "nearer than possible"
    return float((found <= 1.01 * exact).mean())


def linear_case(
    norm: Norm, classes: int, d: int = 12, n: int = 32
) -> tuple[nn.Module, Tensor, Tensor, ThreatModel, Array]:
    """A linear model whose features have units, a box of their own, and one that is held.

    Returns:
        Model, samples, their classes, threat model of no end, exact distances.
    """
    rng = np.random.default_rng(10 * classes + d)
    weight = rng.normal(size=(classes, d)).astype(np.float32)
    bias = 0.3 * rng.normal(size=classes).astype(np.float32)
    low = rng.uniform(-2.0, 0.0, d).astype(np.float32)
    high = (low + rng.uniform(0.5, 4.0, d)).astype(np.float32)
    unit, held = high - low, np.arange(d) == 1
    x = np.clip((low + unit * rng.uniform(size=(n, d))).astype(np.float32), low, high)
    module = frozen_linear(weight, bias)
    samples = torch.tensor(x)
    y = TiledClassifier(module).logits(samples).argmax(1)
    lower, upper, mask, scale = (torch.tensor(part) for part in (low, high, held, unit))
    threat = ThreatModel.box(norm, FAR, lower, upper, mask, scale)
    weight, bias, x, unit = (part.astype(np.float64) for part in (weight, bias, x, unit))
    exact = [
        linear_distance(
            norm,
            weight,
            bias,
            row,
            int(own),
            np.where(held, row, low),
            np.where(held, row, high),
            unit,
        )
        for row, own in zip(x, y, strict=True)
    ]
    return module, samples, y, threat, np.array(exact)


def linear_share(attack: Attack, norm: Norm, classes: int) -> float:
    """Share of the samples of a linear model within 1% of the exact distance."""
    module, x, y, threat, exact = linear_case(norm, classes)
    return share_within(nearest(attack, module, x, y, threat), exact)


def check_fixed(attack: Attack, norm: Norm) -> None:
    """At a fixed eps: legal finds alone, the same for any subset, order and tile; some survive."""
    case = Case.make("cnn-small", norm, 50)
    shape = case.x.shape[1:]
    scale = 0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(0))
    held = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.2
    threat = ThreatModel.box(norm, 1.5 * case.threat.eps, -0.3, 1.2, held, scale)
    x = 1.5 * case.x - 0.3
    classifier = TiledClassifier(case.module)
    y = classifier.logits(x).argmax(1)
    whole = attack(classifier, x, y, case.ids, threat, False)
    check_inside(threat, x, whole.adversarial)
    assert 5 < int(whole.found.sum()) < len(x)
    judged = recheck(classifier, None, x, whole.adversarial, y, threat)
    assert torch.equal(judged.broken, whole.found)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))[:31]
    wide = TiledClassifier(case.module, (32, 64))
    for minimal in (False, True):
        one = whole if not minimal else attack(classifier, x, y, case.ids, threat, True)
        other = attack(wide, x[rows], y[rows], case.ids[rows], threat, minimal)
        check_same(one, other, rows)
    assert (one.found | ~whole.found).all(), "what breaks at eps is within eps"


def check_at_zero(attack: Attack, norm: Norm) -> None:
    """eps = 0 breaks exactly what is misclassified; a sample that is has distance 0."""
    case = Case.make("mlp", norm, 32)
    y = torch.where(torch.arange(32) < 5, (case.y + 1) % 3, case.y)
    classifier, wrong = TiledClassifier(case.module), torch.arange(32) < 5
    none = attack(classifier, case.x, y, case.ids, ThreatModel.box(norm, 0.0), False)
    assert torch.equal(none.found, wrong)
    assert torch.equal(none.adversarial, case.x)
    far = nearest(attack, case.module, case.x, y, ThreatModel.box(norm, FAR))
    assert np.array_equal(far == 0, wrong.numpy())

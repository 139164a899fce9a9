"""Any attack of foolbox (Rauber et al., JOSS 2020), by name, under our threat model and our judge.

Foolbox searches, and nothing that it says counts: what it returns is projected into the threat
model, run again, and taken only where it is still misclassified. It works in [0, 1] (some of its
attacks clip to that whatever they are told), so the box is mapped there by one length for each
feature, which keeps norms. Where boxes differ by feature, the model clips what lies outside.

Noise is drawn from one stream for each sample, by a tensor type of ours that foolbox asks for it.
So what is found for a sample does not depend on the others of its batch where the attack itself
lets none influence another. That is foolbox's to say (`attacks.foolbox_config.in_company`):
GenAttack and PointwiseAttack draw from numpy by place in the batch, HopSkipJump divides by a norm
over the whole batch, CarliniWagner and EAD end a search by the loss of the batch. What is drawn
once for a batch (the boundary attack) is the same for each. A batch has the same size always, and
holds samples in the order of their ids.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.driver import missed
from attacks.errors import AttackError, ClassifierError
from attacks.foolbox_config import FoolboxConfig, library
from attacks.foolbox_model import Spent, Watched, left_alone, row_tensor
from attacks.losses import margin
from attacks.problem import Limits, Problem
from attacks.randomness import stream_keys
from attacks.result import AttackResult, Progress
from attacks.rows import wide
from attacks.threat import ThreatModel

_DIRECTIONS = 100  # random inputs tried for a first adversarial one; each is a pass


class _Search:
    """One run of an attack on one tile."""

    def __init__(self, problem: Problem, config: FoolboxConfig, run: int) -> None:
        self.problem, self.config = problem, config
        self.attack = config.build(problem.threat.norm)
        name, device = f"foolbox-{config.name}", problem.x.device
        ids = problem.ids.tolist()
        self.keys = stream_keys(problem.seed, name, ids, run).to(device)
        self.shared = stream_keys(problem.seed, f"{name}-shared", [0], run).to(device)

    def __call__(self, samples: Tensor, limits: Limits | None) -> tuple[Tensor, Watched]:
        """What foolbox returns for the samples of one tile, and the model it asked.

        Of a sample whose passes or time are over it is the nearest misclassified point asked for.
        """
        problem = self.problem
        x, y = problem.x[samples], problem.y[samples]
        watched = Watched(problem.classifier, x, y, problem.threat, limits).eval()
        with left_alone(problem.classifier.module, int(self.shared), problem.x.device):
            try:
                found = watched.decode(self._search(samples, watched).detach())
                ended = watched.met & ~watched.open
            except Spent:
                found, ended = x, watched.met
            except ClassifierError:
                raise
            except Exception as error:  # a stranger's code
                reason = str(error).strip().splitlines() or [""]
                raise AttackError(
                    f"foolbox's {self.config.name} failed on samples of shape "
                    f"{tuple(problem.x.shape[1:])}: {type(error).__name__} {reason[0]}"
                ) from error
        return torch.where(wide(ended, x), watched.nearest, found), watched

    def _search(self, samples: Tensor, watched: Watched) -> Tensor:
        problem, attacks, criteria = self.problem, library(), library("foolbox.criteria")
        z = watched.encode()
        model = library("foolbox.models").PyTorchModel(watched, (0.0, 1.0), z.device)
        labels = problem.y[samples]
        goal, more = criteria.Misclassification(labels), {}
        if isinstance(self.attack, attacks.GenAttack):  # knows no other goal
            goal = criteria.TargetedMisclassification(problem.ranked[samples, 0])
        if isinstance(self.attack, library("foolbox.attacks.base").FixedEpsilonAttack):
            more["epsilon"] = problem.threat.eps / watched.span
        rows = row_tensor(self.keys[samples], self.shared, z)
        if isinstance(self.attack, _needs_start(attacks)):
            start = attacks.LinearSearchBlendedUniformNoiseAttack(directions=_DIRECTIONS, steps=50)
            begun = start.run(model, rows, goal).raw
            good = margin(model(begun), labels) < 0
            if not bool(good.any()):
                return z
            # the attack refuses a batch with one sample that has no start: another takes its place
            place = torch.where(good, torch.arange(len(z), device=z.device), good.long().argmax())
            watched.repeat(place, good)
            goal = criteria.Misclassification(labels[place])
            rows = row_tensor(self.keys[samples][place], self.shared, z[place])
            more["starting_points"] = type(rows)(begun[place])
            found = self.attack.run(model, rows, goal, **more).raw
            return torch.where(wide(good, z), found, z)
        return typing.cast(Tensor, self.attack.run(model, rows, goal, **more).raw)


def _needs_start(attacks: Any) -> tuple[Any, ...]:
    bethge = library("foolbox.attacks.brendel_bethge").BrendelBethgeAttack
    names = "BoundaryAttack", "HopSkipJumpAttack", "PointwiseAttack", "BinarizationRefinementAttack"
    return (bethge, *(getattr(attacks, name) for name in names))


def foolbox_attack(
    classifier: TiledClassifier,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    threat: ThreatModel,
    config: FoolboxConfig,
    seed: int,
    confirm: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> AttackResult:
    """Attack each sample by an attack of foolbox; see `attacks.problem.Problem` for the arguments.

    Foolbox finishes its search on a whole tile whatever it finds, and a restart takes the samples
    that are left. Passes are those that foolbox asked of the model (for each sample, those of its
    tile), and one for each point that is judged. `iteration` is the number of passes before the
    judged one in its run. A sample that is misclassified as it is, or that cannot move, gets its
    clean pass alone.

    Raises:
        AttackError: Foolbox is missing, the attack is not one for the norm, or it fails.
    """
    problem = Problem(
        classifier, x, y, ids, threat, seed, confirm=confirm, progress=progress, limits=limits
    )
    config.build(threat.norm)
    result = AttackResult.empty(x)
    everyone = torch.arange(len(x), device=x.device)
    if len(x) == 0:
        return result
    most = None if limits is None else limits.queries
    begun = everyone if most is None else everyone[most > 0]
    if len(begun):
        _judge(problem, result, begun, x[begun], 0, None)
    finished = result.found.clone()
    still = threat.eps == 0 or bool((threat.lower == threat.upper).all())
    for run in range(0 if still else config.restarts):
        search = _Search(problem, config, run)
        left = everyone[~result.found]
        if most is not None:  # one pass to search and one to judge, at least
            left = left[(most - result.forwards)[left] > 1]
        left = left[ids.to(left.device)[left].argsort(stable=True)]
        for samples in torch.split(left, classifier.tiles[0]) if len(left) else ():
            if limits is not None and limits.late:
                result.timeout[samples] = True
                continue
            began = time.perf_counter()
            tile = TiledClassifier.pad(samples, classifier.tiles[0])
            rest = None if limits is None else limits.left(tile, result.forwards + 1)
            found, watched = search(tile, rest)
            _judge(problem, result, samples, found[: len(samples)], run, watched)
            if limits is not None and limits.late:
                result.timeout[samples] = ~result.found[samples]
            result.seconds[samples] += (time.perf_counter() - began) / len(samples)
            finished[samples] = result.found[samples] | (run + 1 == config.restarts)
            if progress is not None:
                progress(int(finished.sum()), int(result.found.sum()))
    if len(begun) < len(x):  # the others have their own margin
        result.lowest = torch.where(result.lowest.isinf(), margin(problem.clean, y), result.lowest)
    return result


def _judge(
    problem: Problem,
    result: AttackResult,
    samples: Tensor,
    points: Tensor,
    run: int,
    watched: Watched | None,
) -> None:
    """Project what came back, look at it, and write down what holds."""
    ball = Ball.around(problem.threat, problem.x[samples])
    points = ball.project(torch.where(points.isfinite(), points, ball.x))
    logits, y = problem.classifier.logits(points), problem.y[samples]
    gap, hit = margin(logits, y), missed(logits, y)
    gap = torch.where(logits.isfinite().all(1), gap, torch.nan)
    if problem.confirm is not None and bool(hit.any()):
        sure = hit.index_put((hit.nonzero()[:, 0],), problem.confirm(points[hit], y[hit]))
        result.rounding[samples[hit & ~sure]] = True
        hit = sure
    finite = torch.where(gap.isfinite(), gap, torch.inf)
    result.lowest[samples] = torch.minimum(result.lowest[samples], finite)
    passes = torch.zeros_like(samples) if watched is None else watched.passes[: len(samples)]
    result.forwards[samples] += passes + 1
    result.not_finite[samples] |= ~gap.isfinite()
    if watched is not None:
        result.backwards[samples] += watched.backwards[: len(samples)]
        result.not_finite[samples] |= watched.wild[: len(samples)]
        result.flat[samples] |= watched.flat[: len(samples)]
    here = torch.full_like(samples[hit], run)
    result.record(samples[hit], points[hit], here, passes[hit])

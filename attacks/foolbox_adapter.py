"""Any attack of foolbox (Rauber et al., JOSS 2020), by name, under our threat model and our judge.

Foolbox searches, and nothing that it says counts: what it returns is projected into the threat
model, run again, and taken only where it is still misclassified. It works in [0, 1] (some of its
attacks clip to that whatever they are told), so the box is mapped there by one length for each
feature, which keeps norms. Where boxes differ by feature, the model clips what lies outside.

Noise is drawn from one stream for each sample, by a tensor type of ours that foolbox asks for it.
So what is found for a sample does not depend on the others of its batch where the attack itself
lets none influence another. That is foolbox's to say: GenAttack and PointwiseAttack draw from numpy
by place in the batch, HopSkipJump divides by a norm over the whole batch, CarliniWagner and EAD end
a search by the loss of the batch. What is drawn once for a batch (the boundary attack) is the same
for each. A batch has the same size always, and holds samples in the order of their ids.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import time
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from attacks.balls import Ball
from attacks.classifier import TiledClassifier
from attacks.convolution import FastInputGradients
from attacks.driver import missed
from attacks.errors import AttackError, ClassifierError
from attacks.lanes import Problem
from attacks.losses import margin
from attacks.randomness import gaussian, stream_keys, uniform
from attacks.result import AttackResult, Progress
from attacks.threat import NORMS, AnyNorm, ThreatModel

_OURS = ("distance", "init_attack", "tensorboard")  # options that are set here, or not at all
_CHUNK = 1 << 20  # numbers drawn at once
_DIRECTIONS = 100  # random inputs tried for a first adversarial one; each is a pass


def _foolbox(module: str = "foolbox.attacks") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AttackError(
            f"attacks of foolbox need foolbox ({error}): pip install 'foolbox>=3.3.4'"
        ) from error


def _unknown(what: str, name: str, known: list[str]) -> AttackError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known) or 'none'}"
    return AttackError(f"{what} '{name}': {hint}")


def _classes() -> dict[str, Any]:
    """Every attack with a norm that needs no data of its own, by name."""
    attacks, base = _foolbox(), _foolbox("foolbox.attacks.base").AttackWithDistance
    return {
        name: kind
        for name, kind in sorted(vars(attacks).items())
        if inspect.isclass(kind)
        and issubclass(kind, base)
        and not inspect.isabstract(kind)
        and kind is not attacks.DatasetAttack
    }


def _norms(kind: Any) -> tuple[str, ...]:
    """The norms that an attack can be measured in."""
    if "constraint" in inspect.signature(kind).parameters:
        return ("linf", "l2")  # HopSkipJump; the distance it states is another
    if issubclass(kind, _foolbox("foolbox.attacks.base").FlexibleDistanceMinimizationAttack):
        return NORMS
    return (f"l{kind.__new__(kind).distance.p:g}",)


def foolbox_attacks(norm: AnyNorm | None = None) -> list[str]:
    """Names of the attacks of foolbox that can be run here.

    Args:
        norm: Only those for this norm; None: for any of `attacks.threat.NORMS`.

    Raises:
        AttackError: Foolbox is not installed.
    """
    wanted = set(NORMS if norm is None else (norm,))
    return [name for name, kind in _classes().items() if wanted & set(_norms(kind))]


def check_name(name: str) -> None:
    """Raise AttackError, with a hint, unless foolbox is there and has this attack."""
    classes = _classes()
    if name not in classes:
        raise _unknown("foolbox has no attack", name, list(classes))


def fits(value: object, hint: Any) -> bool:
    """Whether a plain value is of an annotated type."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, UnionType, tuple):
        parts = [part for part in typing.get_args(hint) if part is not ...]
        if origin is tuple:
            return isinstance(value, list | tuple) and all(fits(v, parts[0]) for v in value)
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in typing.get_args(hint)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


@dataclass(frozen=True)
class FoolboxConfig:
    """Settings of an attack of foolbox; every one of them is part of the protocol.

    Attributes:
        name: Class in `foolbox.attacks`, with or without "foolbox:" before it.
        options: Arguments of the class, plain values; those left out are foolbox's own, and are
            often weak: its LinfPGD takes 40 steps of eps / 30. Lengths are in [0, 1].
        restarts: Runs of a sample, >= 1; it stops at the first that breaks it.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.restarts < 1:
            raise AttackError(f"restarts is {self.restarts}: it must be at least 1")
        object.__setattr__(self, "name", self.name.removeprefix("foolbox:"))
        check_name(self.name)
        classes = _classes()
        parameters = inspect.signature(classes[self.name]).parameters
        hints = typing.get_type_hints(classes[self.name].__init__)
        known = [name for name in parameters if name not in _OURS]
        for name, value in self.options.items():
            if name not in known:
                raise _unknown(f"{self.name} has no option", name, known)
            if not fits(value, hints[name]):
                wanted = inspect.formatannotation(hints[name])
                raise AttackError(f"{self.name}: {name} is {value!r}, it must be {wanted}")
        for name in known:
            if parameters[name].default is inspect.Parameter.empty and name not in self.options:
                raise AttackError(f"{self.name} needs the option '{name}'")

    def build(self, norm: AnyNorm) -> Any:
        """The attack, for one norm.

        Raises:
            AttackError: It is not one for this norm, or foolbox refuses an option.
        """
        kind, options = _classes()[self.name], dict(self.options)
        parameters = inspect.signature(kind).parameters
        if "distance" in parameters:
            options["distance"] = getattr(_foolbox("foolbox.distances"), norm)
        able = _norms(kind)
        if "constraint" in parameters and norm in able:
            able = (options.setdefault("constraint", norm),)
        if norm not in able:
            raise AttackError(
                f"foolbox's {self.name} is an attack in {' or '.join(able)}, the threat model is "
                f"in {norm}: for that there are {', '.join(foolbox_attacks(norm))}"
            )
        try:
            return kind(**options)
        except ImportError as error:
            raise AttackError(f"foolbox's {self.name} needs more: {error}, install it") from error
        except Exception as error:  # a stranger's code
            raise AttackError(f"foolbox's {self.name} refuses its options: {error}") from error


class _Watched(nn.Module):
    """The model on [0, 1], which counts what is asked of it."""

    def __init__(self, classifier: TiledClassifier, x: Tensor, threat: ThreatModel) -> None:
        super().__init__()
        unit = torch.ones_like(x[0]) if threat.scale is None else threat.scale
        self.span = float(((threat.upper - threat.lower) / unit).max())
        self.width = unit * self.span
        self.classifier, self.x, self.threat = classifier, x, threat
        self.forwards = self.backwards = 0
        self.flat = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.wild = torch.zeros_like(self.flat)

    def encode(self) -> Tensor:
        """The samples in [0, 1]."""
        return ((self.x - self.threat.lower) / self.width).clamp(0.0, 1.0)

    def decode(self, z: Tensor) -> Tensor:
        """From [0, 1] to the box."""
        x = self.threat.lower + z * self.width
        return torch.minimum(torch.maximum(x, self.threat.lower), self.threat.upper)

    def forward(self, z: Tensor) -> Tensor:
        x = self.decode(z)
        if len(x) != len(self.x):
            raise AttackError(f"it asks for {len(x)} rows at once, for {len(self.x)} samples")
        if self.threat.immutable is not None:
            x = torch.where(self.threat.immutable, self.x, x)
        if x.requires_grad:
            x.register_hook(self._pulled)  # type: ignore[no-untyped-call]
        with FastInputGradients() if self.classifier.fast else nullcontext():
            logits = self.classifier.module(x.clone())
        self.forwards += 1
        self.classifier.work.forwards += len(x)
        self.wild |= ~logits.detach().isfinite().all(1)
        return typing.cast(Tensor, logits)

    def _pulled(self, gradient: Tensor) -> None:
        self.backwards += 1
        self.classifier.work.backwards += len(gradient)
        pull = gradient.flatten(1).abs().sum(1)
        self.wild |= ~pull.isfinite()
        self.flat |= pull == 0


def _tensor(rows: Tensor, shared: Tensor, raw: Tensor) -> Any:
    """`raw` as foolbox sees it, with noise from one stream for each row.

    Args:
        rows: Keys of the streams, int64, (n,).
        shared: Key for what is drawn once for all rows, int64, (1,).
        raw: (n, *shape).
    """
    base = _foolbox("eagerpy").PyTorchTensor
    n, shape, used = len(rows), tuple(raw.shape[1:]), 0

    def draw(kind: Callable[..., Tensor], words: int, size: Any) -> Tensor:
        nonlocal used
        size = (size,) if isinstance(size, int) else tuple(size)
        second = len(size) > 1 and size[1] == n and size[2:] == shape  # (draws, n, *shape)
        keys = rows if second or size[:1] == (n,) else shared
        count = int(np.prod(size)) // len(keys)
        parts = []
        for begin in range(0, count, _CHUNK // n):
            parts.append(kind(keys, min(_CHUNK // n, count - begin), offset=used + words * begin))
        used += words * count
        found = torch.cat(parts, 1).to(raw.dtype)
        if second:
            return found.view(n, size[0], *shape).transpose(0, 1)
        return found.view(size)

    def uniformly(self: Any, size: Any, low: float = 0.0, high: float = 1.0) -> Any:
        return type(self)(draw(uniform, 1, size) * (high - low) + low)

    def normally(self: Any, size: Any, mean: float = 0.0, stddev: float = 1.0) -> Any:
        return type(self)(draw(gaussian, 3, size) * stddev + mean)

    methods = {"__slots__": (), "uniform": uniformly, "normal": normally}
    return type("RowTensor", (base,), methods)(raw)


@contextmanager
def _left_alone(module: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Inside, random numbers are seeded and weights need no gradient; all of it comes back."""
    state, needed = np.random.get_state(), [p for p in module.parameters() if p.requires_grad]
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.inference_mode(False),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            for parameter in needed:
                parameter.requires_grad_(False)
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(state)
        for parameter in needed:
            parameter.requires_grad_(True)


class _Search:
    """One run of an attack on one tile."""

    def __init__(self, problem: Problem, config: FoolboxConfig, run: int) -> None:
        self.problem, self.config = problem, config
        self.attack = config.build(problem.threat.norm)
        name, device = f"foolbox-{config.name}", problem.x.device
        ids = problem.ids.tolist()
        self.keys = stream_keys(problem.seed, name, ids, run).to(device)
        self.shared = stream_keys(problem.seed, f"{name}-shared", [0], run).to(device)

    def __call__(self, samples: Tensor) -> tuple[Tensor, _Watched]:
        """What foolbox returns for the samples of one tile, and the model it asked."""
        problem = self.problem
        watched = _Watched(problem.classifier, problem.x[samples], problem.threat).eval()
        with _left_alone(problem.classifier.module, int(self.shared), problem.x.device):
            try:
                found = self._search(samples, watched)
            except ClassifierError:
                raise
            except Exception as error:  # a stranger's code
                reason = str(error).strip().splitlines() or [""]
                raise AttackError(
                    f"foolbox's {self.config.name} failed on samples of shape "
                    f"{tuple(problem.x.shape[1:])}: {type(error).__name__} {reason[0]}"
                ) from error
        return watched.decode(found.detach()), watched

    def _search(self, samples: Tensor, watched: _Watched) -> Tensor:
        problem, attacks, criteria = self.problem, _foolbox(), _foolbox("foolbox.criteria")
        z = watched.encode()
        model = _foolbox("foolbox.models").PyTorchModel(watched, (0.0, 1.0), z.device)
        labels = problem.y[samples]
        goal, more = criteria.Misclassification(labels), {}
        if isinstance(self.attack, attacks.GenAttack):  # knows no other goal
            goal = criteria.TargetedMisclassification(problem.ranked[samples, 0])
        if isinstance(self.attack, _foolbox("foolbox.attacks.base").FixedEpsilonAttack):
            more["epsilon"] = problem.threat.eps / watched.span
        rows = _tensor(self.keys[samples], self.shared, z)
        if isinstance(self.attack, _needs_start(attacks)):
            start = attacks.LinearSearchBlendedUniformNoiseAttack(directions=_DIRECTIONS, steps=50)
            begun = start.run(model, rows, goal).raw
            good = margin(model(begun), labels) < 0
            if not bool(good.any()):
                return z
            # the attack refuses a batch with one sample that has no start: another takes its place
            place = torch.where(good, torch.arange(len(z), device=z.device), good.long().argmax())
            watched.x, goal = watched.x[place], criteria.Misclassification(labels[place])
            rows = _tensor(self.keys[samples][place], self.shared, z[place])
            more["starting_points"] = type(rows)(begun[place])
            found = self.attack.run(model, rows, goal, **more).raw
            watched.flat &= good
            return torch.where(good.view(-1, *[1] * (z.dim() - 1)), found, z)
        return typing.cast(Tensor, self.attack.run(model, rows, goal, **more).raw)


def _needs_start(attacks: Any) -> tuple[Any, ...]:
    bethge = _foolbox("foolbox.attacks.brendel_bethge").BrendelBethgeAttack
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
) -> AttackResult:
    """Attack each sample by an attack of foolbox; see `attacks.lanes.Problem` for the arguments.

    Foolbox finishes its search on a whole tile whatever it finds, and a restart takes the samples
    that are left. Passes are those that foolbox asked of the model (for each sample, those of its
    tile), and one for each point that is judged. `iteration` is the number of passes before the
    judged one in its run. A sample that is misclassified as it is, or that cannot move, gets its
    clean pass alone.

    Raises:
        AttackError: Foolbox is missing, the attack is not one for the norm, or it fails.
    """
    problem = Problem(classifier, x, y, ids, threat, seed, confirm=confirm, progress=progress)
    config.build(threat.norm)
    result = AttackResult.empty(x)
    everyone = torch.arange(len(x), device=x.device)
    if len(x) == 0:
        return result
    _judge(problem, result, everyone, x, 0, 0, None)
    finished = result.found.clone()
    still = threat.eps == 0 or bool((threat.lower == threat.upper).all())
    for run in range(0 if still else config.restarts):
        search = _Search(problem, config, run)
        left = everyone[~result.found]
        left = left[ids.to(left.device)[left].argsort(stable=True)]
        for samples in torch.split(left, classifier.tiles[0]):
            began = time.perf_counter()
            found, watched = search(TiledClassifier.pad(samples, classifier.tiles[0]))
            _judge(problem, result, samples, found[: len(samples)], run, watched.forwards, watched)
            result.seconds[samples] += (time.perf_counter() - began) / len(samples)
            finished[samples] = result.found[samples] | (run + 1 == config.restarts)
            if progress is not None:
                progress(int(finished.sum()), int(result.found.sum()))
    return result


def _judge(
    problem: Problem,
    result: AttackResult,
    samples: Tensor,
    points: Tensor,
    run: int,
    passes: int,
    watched: _Watched | None,
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
    result.forwards[samples] += passes + 1
    result.not_finite[samples] |= ~gap.isfinite()
    if watched is not None:
        result.backwards[samples] += watched.backwards
        result.not_finite[samples] |= watched.wild[: len(samples)]
        result.flat[samples] |= watched.flat[: len(samples)]
    here = torch.full_like(samples[hit], run)
    result.record(samples[hit], points[hit], here, torch.full_like(here, passes))

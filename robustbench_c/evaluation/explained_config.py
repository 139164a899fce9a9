"""What a run about explanations explains, attacks and proves; how a record holds it, and back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from attacks.errors import AttackError
from attacks.explanation_config import ExplanationAttackConfig
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation
from attacks.threat import WeightBudget
from certify.explaining import METHODS, Method
from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes, read_bytes
from leaderboards.manifest import CriterionInfo, ExplanationInfo, FeatureInfo, Parameter, StepInfo
from leaderboards.sample_ids import format_ids, parse_ids
from leaderboards.store import RunStore
from robustbench_c.errors import UsageError, did_you_mean
from robustbench_c.evaluation.digest import digest

ATTACK = "explain-attack"
"""Name of the step that bends explanations."""
ATTACK_VERSION = 1
CERTIFICATE_VERSION = 1
TILE = 32
"""Samples whose boxes are made together."""
TENSORS = "explanation.safetensors"
"""File of the explanation's own tensors, in the run's folder."""
_MAX_TENSORS = 1 << 30
_MOST_SUBPROBLEMS = 1 << 20


@dataclass(frozen=True, eq=False)
class ExplainConfig:
    """What is explained, when it counts as bent, and what is tried and proved.

    Attributes:
        explanation: Which.
        criterion: The distance, and the largest that is fine. The default asks for a cosine
            similarity of at least 0.9, which no scaling of gradients changes.
        attack: Settings of the attack; None for proofs alone.
        methods: Certificates that run, each on all samples.
        budget: What the attacker may do to the weights; None for nothing.
        k: Number of entries that the metric `top_k` ranks first; None for 10 or all.
        lipschitz: Subproblems for each sample and logit, >= 1, of local Lipschitz constants; None
            leaves these out.
        monotone: Features, by ascending place, in which the explained score may be monotone.
    """

    explanation: Explanation = field(default_factory=Explanation)
    criterion: Criterion = field(default_factory=lambda: Criterion("cosine", 0.1))
    attack: ExplanationAttackConfig | None = field(default_factory=ExplanationAttackConfig)
    methods: tuple[Method, ...] = ("crown-interval",)
    budget: WeightBudget | None = None
    k: int | None = None
    lipschitz: int | None = None
    monotone: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                known: list[str] = list(METHODS)
                raise UsageError(f"no certificate '{method}'; {did_you_mean(method, known)}")
        if len(set(self.methods)) < len(self.methods):
            raise UsageError("a certificate is named twice")
        if self.attack is None and not self.methods:
            raise UsageError("neither an attack nor a certificate: give one of them")
        if (self.lipschitz is not None or self.monotone) and not self.methods:
            raise UsageError(
                "Lipschitz constants and monotonicity are in the rows of certificates: name one"
            )
        if list(self.monotone) != sorted(set(self.monotone)):
            raise UsageError("the features of monotone are not in ascending order")
        if self.lipschitz is not None and not 1 <= self.lipschitz <= _MOST_SUBPROBLEMS:
            raise UsageError(
                f"{self.lipschitz} subproblems for Lipschitz constants: from 1 to "
                f"{_MOST_SUBPROBLEMS} will do"
            )

    def steps(self) -> tuple[StepInfo, ...]:
        """The steps after `clean`, in the order they run."""
        steps = []
        if self.attack is not None:
            settings: dict[str, Parameter] = asdict(self.attack) | {"samples": "right"}
            steps.append(
                StepInfo(name=ATTACK, kind="attack", version=ATTACK_VERSION, parameters=settings)
            )
        for method in self.methods:
            parameters: dict[str, Parameter] = {"method": method, "tile": TILE, "samples": "right"}
            steps.append(
                StepInfo(
                    name=f"explain-{method}",
                    kind="certificate",
                    version=CERTIFICATE_VERSION,
                    parameters=parameters,
                )
            )
        return tuple(steps)

    def info(self, shape: tuple[int, ...], names: tuple[str, ...] = ()) -> ExplanationInfo:
        """What a manifest says of it, for samples of this shape.

        Args:
            shape: Of one sample.
            names: Of its features, if they have names.

        Raises:
            AttackError: An explanation of this shape lacks the entries that are ranked.
            UsageError: It lacks a feature of `monotone`.
        """
        if self.monotone and not 0 <= min(self.monotone) <= max(self.monotone) < math.prod(shape):
            raise UsageError(
                f"monotone in feature {max(self.monotone)}: a sample has {math.prod(shape)}"
            )
        self.criterion.check_shape(shape)
        k = min(10, math.prod(shape)) if self.k is None else self.k
        Criterion("top-k", k=k).check_shape(shape)
        own = {name: digest(t) for name, t in self.explanation.tensors.items()}
        criterion = asdict(self.criterion)
        features = sorted(criterion.pop("features"))
        return ExplanationInfo(
            kind=self.explanation.kind,
            of=self.explanation.of,
            steps=self.explanation.steps,
            criterion=CriterionInfo(**criterion, features=format_ids(features) if features else ""),
            k=k,
            gamma=0.0 if self.budget is None else self.budget.gamma,
            gamma_relative=self.budget is None or self.budget.relative,
            lipschitz_budget=self.lipschitz,
            monotone=tuple(
                FeatureInfo(place=i, name=names[i][:500] if names else str(i))
                for i in self.monotone
            ),
            **own,
        )


def attack_of(step: StepInfo) -> ExplanationAttackConfig:
    """Return the settings of an attack's step.

    Raises:
        RecordError: They are not those of the attack that is known here.
    """
    settings = {k: v for k, v in step.parameters.items() if k != "samples"}
    try:
        return ExplanationAttackConfig(**settings)  # type: ignore[arg-type]  # it says what is wrong
    except (TypeError, AttackError) as error:
        raise RecordError(
            f"step {step.name} does not have the settings of the attack: {error}"
        ) from None


def method_of(step: StepInfo) -> Method:
    """Return the method of a certificate's step.

    Raises:
        RecordError: It is none that is known here.
    """
    method, tile = step.parameters.get("method"), step.parameters.get("tile")
    if method not in METHODS or tile != TILE:
        raise RecordError(f"step {step.name} is no certificate that this version knows")
    return method


def save_tensors(store: RunStore, explanation: Explanation) -> None:
    """Write the explanation's own tensors beside the manifest, which has their hashes."""
    if own := explanation.tensors:
        tensors = {name: t.detach().cpu().contiguous() for name, t in own.items()}
        atomic_write_bytes(store.folder / TENSORS, safetensors.torch.save(tensors))


def config_of(store: RunStore) -> ExplainConfig:
    """Return what a record says was explained, attacked and proved.

    Raises:
        RecordError: It is not about explanations, the tensors are missing or are not those of the
            manifest, or its settings do not fit each other.
    """
    info = store.manifest.protocol.explanation
    if info is None:
        raise RecordError(f"{store.folder} is not about explanations")
    steps = store.manifest.protocol.steps
    attacks = [attack_of(step) for step in steps if step.kind == "attack"]
    wanted = {n: h for n in ("baseline", "noise") if (h := getattr(info, n)) is not None}
    tensors = _tensors(store) if wanted else {}
    if {name: digest(t) for name, t in tensors.items()} != wanted:
        raise RecordError(f"{store.folder / TENSORS} does not hold what the manifest was made of")
    criterion = info.criterion.model_dump()
    features = criterion.pop("features")
    places = tuple(parse_ids(features).tolist()) if features else ()
    try:
        config = ExplainConfig(
            Explanation(info.kind, info.of, info.steps, **tensors),
            Criterion(**criterion, features=places),
            attacks[0] if attacks else None,
            tuple(method_of(step) for step in steps if step.kind == "certificate"),
            WeightBudget(info.gamma, info.gamma_relative) if info.gamma else None,
            info.k,
            info.lipschitz_budget,
            tuple(feature.place for feature in info.monotone),
        )
        config.info(store.manifest.data.shape)
    except (AttackError, UsageError) as error:
        raise RecordError(f"{store.folder}: {error}") from None
    return config


def _tensors(store: RunStore) -> dict[str, torch.Tensor]:
    path: Path = store.folder / TENSORS
    try:
        return safetensors.torch.load(read_bytes(store.folder, path, _MAX_TENSORS))
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise RecordError(f"{path} is damaged: {error}") from None

"""The manifest of a run: everything that was fixed before its first sample."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from leaderboards.canonical import sha256_json
from leaderboards.errors import RecordError
from leaderboards.sample_ids import Ids, format_ids, hash_ids, parse_ids
from leaderboards.strict_json import check_json
from leaderboards.verdicts import CLEAN_STEP

MANIFEST_SCHEMA: Final = 1
MAX_MANIFEST_BYTES = 16 << 20
_MOST_FEATURES = 2**31
_LAST_YEAR = 2100


def _canonical_ids(text: str) -> str:
    if text != (canonical := format_ids(parse_ids(text))):
        raise RecordError(f"sample ids have to be written as '{canonical[:40]}'")
    return text


def _canonical_features(text: str) -> str:
    return _canonical_ids(text) if text else text


def _not_clean(name: str) -> str:
    if name == CLEAN_STEP:
        raise RecordError(f"'{CLEAN_STEP}' is the name of every run's first step")
    return name


def _fits(shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(max(length, 1) for length in shape) > _MOST_FEATURES:
        raise RecordError(f"a sample has more than {_MOST_FEATURES} features")
    return shape


def _in_our_time(created: datetime) -> datetime:
    if created.year > _LAST_YEAR:
        raise RecordError(f"begun after the year {_LAST_YEAR}")
    return created


Text = Annotated[str, StringConstraints(max_length=500)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
"""Names that become file names: the reason why they are this narrow."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Severity = Annotated[int, Field(ge=1, le=5)]
SampleScope = Literal["open", "audit", "right"]
"""Samples a certificate runs on (its parameter `samples`): those that no step before it settled;
these and the ones that a step broke, to see that it proves none of them; all that `clean` left."""
Parameter = int | float | str | bool | None


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields, no conversions, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class SizeInfo(Record):
    """What a model takes, counted on the model itself; work is that of one sample."""

    weights: Count
    """Weights of its linear and convolution layers: those that can be pruned."""
    nonzero_weights: Count
    """Those that are not 0."""
    nonzero_parameters: Count
    """Parameters that are not 0."""
    macs: Count
    """Multiply-adds of the layers; FLOPs are twice as many."""
    nonzero_macs: Count
    """The same with the weights that are not 0."""
    dense_bytes: Count
    """Bytes of parameters and buffers."""
    packed_bytes: Count
    """The same as the zoo writes them: sparse weights as compressed rows."""

    @model_validator(mode="after")
    def _possible(self) -> SizeInfo:
        if self.nonzero_weights > self.weights:
            raise RecordError("more weights are not 0 than there are")
        if self.nonzero_macs > self.macs:
            raise RecordError("more MACs are of weights that are not 0 than there are")
        return self


class DrawsInfo(Record):
    """A random model as the mean of its probabilities over draws that are made once."""

    count: Annotated[int, Field(ge=1, le=10_000)]
    """Number of draws."""
    seed: Count
    """Their seed."""
    other_seed: Count
    """Seed of as many others, on which the result is judged as well."""
    base_name: Text
    """Name of the random model."""
    base_sha256: Sha256
    """Its hash."""


class ModelInfo(Record):
    """The model that was evaluated."""

    name: Text
    """Name in the zoo, or the file's name."""
    architecture: Text
    """Architecture and its arguments, in words."""
    sha256: Sha256
    """Hash of the weights: of the content, not of a path."""
    parameters: Count
    """Number of parameters."""
    normalisation: Text
    """What the model does to its input first, such as `mean 0.286, std 0.353`, or `none`."""
    card: dict[str, JsonValue] | None = None
    """The model card, if the model has one."""
    size: SizeInfo | None = None
    """What the model takes; absent in older records, and where there is no such model."""
    draws: DrawsInfo | None = None
    """Absent unless the model is the mean of a random one over draws."""

    @model_validator(mode="after")
    def _possible(self) -> ModelInfo:
        if self.size is not None and self.size.nonzero_parameters > self.parameters:
            raise RecordError("more parameters are not 0 than there are")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is absent: older records are written as they were."""
        fields: dict[str, Any] = handler(self)
        for name in ("size", "draws"):
            if getattr(self, name) is None:
                del fields[name]
        return fields


class DataInfo(Record):
    """The data, and which of its samples the run is about."""

    name: Text
    """Name in the registry, or the file's name."""
    split: Text
    """Such as `test`."""
    sha256: Sha256
    """Hash of the whole set's content."""
    ids: Annotated[str, AfterValidator(_canonical_ids)]
    """Positions of the run's samples in the set, as ascending ranges: `0-999,1004`."""
    shape: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_fits)]
    """Shape of one sample."""
    classes: tuple[Text, ...] = Field(min_length=2)
    """Names of the classes, in the order of the labels."""
    box_lower: tuple[float, float]
    """Smallest and largest lower end of the input box over the features, in input units."""
    box_upper: tuple[float, float]
    """Smallest and largest upper end of the input box over the features, in input units."""
    box_sha256: Sha256
    """Hash of the box, feature by feature."""

    @property
    def sample_ids(self) -> Ids:
        """The ids of the run's samples, ascending."""
        return parse_ids(self.ids)

    @property
    def samples(self) -> int:
        """The number of the run's samples."""
        return int(self.sample_ids.size)

    @property
    def ids_sha256(self) -> str:
        """Hash of the set of ids."""
        return hash_ids(self.sample_ids)


class ThreatInfo(Record):
    """What the attacker may do."""

    norm: Literal["linf", "l2", "l1", "l0"]
    """Norm of the perturbation; `l0` counts the features that differ."""
    eps: Annotated[float, Field(ge=0)]
    """Radius, in units of `eps_unit` (of `l0`: a number of features); 0 is legal."""
    eps_unit: Literal["input", "range"] = "input"
    """`input`: units of the data. `range`: fractions of each feature's range, upper - lower."""
    sha256: Sha256
    """Hash of the whole threat model: norm, eps, box, immutable features and unit."""
    immutable: Annotated[str, AfterValidator(_canonical_features)] = ""
    """Features that may not change, by place in the flattened sample, as ranges: `0-2,7`."""


class CriterionInfo(Record):
    """When an explanation counts as bent: its distance from the clean one exceeds `threshold`."""

    measure: Literal["linf", "l2", "l1", "mean", "cosine", "top-k", "into-top-k", "out-of-top-k"]
    """`linf`, `l2`, `l1`: norm of the difference; `mean`: mean of its absolute values; `cosine`:
    1 - cosine similarity; `top-k`: share of the k largest entries that no longer are; `into-top-k`,
    `out-of-top-k`: how many of `features` are among the k largest, and how many are not."""
    threshold: Annotated[float, Field(ge=0)]
    """Largest distance that is still fine."""
    k: Annotated[int, Field(ge=1)] | None = None
    """Number of entries that are ranked first, for the last three measures."""
    features: Annotated[str, AfterValidator(_canonical_features)] = ""
    """Places in the flattened explanation, as ranges, for the last two."""
    relative: bool = False
    """Whether a norm or mean counts in parts of that of the clean explanation."""
    signed: bool = False
    """Whether entries are ranked by value and not by absolute value."""


class FeatureInfo(Record):
    """A feature of a sample."""

    place: Count
    """In the flattened sample, from 0."""
    name: Text
    """Its name; its place where it has none."""


class ExplanationInfo(Record):
    """The explanation that a run is about: of the class predicted on the clean sample."""

    kind: Literal[
        "gradient", "absolute-gradient", "input-x-gradient", "integrated-gradients", "smoothgrad"
    ]
    """How it is made."""
    of: Literal["logit", "loss", "margin"]
    """What it is a gradient of; a `margin` is over the class that comes second."""
    steps: Annotated[int, Field(ge=1, le=2**16)]
    """Points of the path, or draws of noise; 1 for the others."""
    baseline: Sha256 | None = None
    """Hash of where the path of integrated gradients starts; null for zeros."""
    noise: Sha256 | None = None
    """Hash of smoothgrad's noise."""
    criterion: CriterionInfo
    """When it counts as bent."""
    k: Annotated[int, Field(ge=1)]
    """Number of entries that column `top_k` ranks first."""
    gamma: Annotated[float, Field(ge=0)] = 0.0
    """What the attacker may do to the weights: how far each may move; 0 for nothing."""
    gamma_relative: bool = True
    """Whether that is a share of each weight's absolute value."""
    lipschitz_budget: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """Subproblems for each sample and logit, of the local Lipschitz constants; absent where they
    are not asked for."""
    monotone: Annotated[tuple[FeatureInfo, ...], Field(max_length=4096)] = ()
    """Features, by ascending place, in which the score may be proved monotone; absent if none."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not asked for: protocols without it keep their hash."""
        fields: dict[str, Any] = handler(self)
        if self.lipschitz_budget is None:
            del fields["lipschitz_budget"]
        if not self.monotone:
            del fields["monotone"]
        return fields

    @model_validator(mode="after")
    def _ascending(self) -> ExplanationInfo:
        places = [feature.place for feature in self.monotone]
        if places != sorted(set(places)):
            raise RecordError("the features of monotone are not in ascending order")
        return self


class CorruptionInfo(Record):
    """Common corruptions: each step is one kind, on all samples, right or wrong."""

    severities: Annotated[tuple[Severity, ...], Field(min_length=1)]
    """Those of every kind, ascending."""

    @model_validator(mode="after")
    def _ascending(self) -> CorruptionInfo:
        if list(self.severities) != sorted(set(self.severities)):
            raise RecordError("the severities are not in ascending order")
        return self


class TransformationInfo(Record):
    """A search over simple transformations in no norm ball: each step is one family."""

    levels: Annotated[int, Field(ge=1, le=1000)]
    """Strengths of each family, in equal parts of its range."""
    draws: Annotated[int, Field(ge=0, le=2**20)]
    """Random mixtures tried on what no family breaks alone."""


class StepInfo(Record):
    """One step of a protocol."""

    name: Annotated[Slug, AfterValidator(_not_clean)]
    """Name of the step and of its folder of shards, such as `pgd`."""
    kind: Literal["attack", "certificate"]
    """Whether it can break samples or certify them."""
    version: Annotated[int, Field(ge=1)] = 1
    """Version of the algorithm: raised when its results change."""
    parameters: dict[Text, Parameter] = {}
    """Everything that changes its results."""

    @property
    def minimal(self) -> bool:
        """Whether it attacks every sample that is right, for its nearest adversarial example."""
        return self.kind == "attack" and self.parameters.get("minimal") is True


class Protocol(Record):
    """Threat model, steps and rules: records are ranked together only at equal hash."""

    name: Slug | None = None
    """Name of the protocol file, such as `fmnist-linf-0.1-v1`; null if made up on the spot."""
    version: Annotated[int, Field(ge=1)] = 1
    """Version of the protocol file."""
    threat: ThreatInfo
    """What the attacker may do."""
    steps: tuple[StepInfo, ...]
    """The steps after `clean`, in the order they run."""
    rules: Annotated[int, Field(ge=1)]
    """Version of the verdict rules (`leaderboards.verdicts.RULES_VERSION`)."""
    explanation: ExplanationInfo | None = None
    """The explanation that the run is about; absent where it is about predictions."""
    corruption: CorruptionInfo | None = None
    """Absent unless the run is about common corruptions."""
    transformation: TransformationInfo | None = None
    """Absent unless the run is a search over simple transformations."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is absent: protocols of predictions keep their hash."""
        fields: dict[str, Any] = handler(self)
        for name in ("explanation", "corruption", "transformation"):
            if getattr(self, name) is None:
                del fields[name]
        return fields

    @model_validator(mode="after")
    def _distinct_steps(self) -> Protocol:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise RecordError(f"two steps of one name: {', '.join(names)}")
        return self

    @property
    def sha256(self) -> str:
        """Hash of the protocol's canonical JSON."""
        return sha256_json(self.model_dump(mode="json"))


class Manifest(Record):
    """Everything that was fixed before the run's first sample; never changed afterwards."""

    schema_version: Literal[1] = MANIFEST_SCHEMA
    """Format of this file."""
    run_id: Slug
    """Name of the run."""
    created: Annotated[AwareDatetime, AfterValidator(_in_our_time)]
    """When the run was begun, with its time zone."""
    tool_version: Text
    """Version of robustbench-c that began it."""
    model: ModelInfo
    """The model that was evaluated."""
    data: DataInfo
    """The data, and which of its samples."""
    protocol: Protocol
    """Threat model, steps and rules."""
    protocol_sha256: Sha256
    """Hash of `protocol`: what comparable records share."""
    seed: Count
    """Seed of all randomness."""
    tiles: tuple[Annotated[int, Field(ge=1, le=2**16)], ...] = Field(min_length=1, max_length=64)
    """Sizes of a pass, measured to give the same bits; a resume goes on with them."""
    batch_size: Annotated[int, Field(ge=1)]
    """Samples worked on together; changes no result."""
    device: Text
    """Device in torch's notation, such as `cpu` or `cuda:0`."""
    device_name: Text
    """The device's own name."""
    dtype: Text
    """Number format of the passes, such as `float32`."""
    threads: Annotated[int, Field(ge=1, le=1024)]
    """Number of CPU threads."""
    versions: dict[Text, Text]
    """Versions of Python and of the libraries; `torch` is among them."""
    platform: Text
    """Operating system and machine."""
    reproducible: bool
    """False if a budget in seconds makes the result depend on speed, or an attack of foolbox lets
    samples influence one another; such runs are not ranked."""
    notices: tuple[Annotated[str, StringConstraints(max_length=2000)], ...] = ()
    """What a reader should know before trusting the run."""

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.protocol_sha256 != self.protocol.sha256:
            raise RecordError("protocol_sha256 is not the hash of protocol")
        if "torch" not in self.versions:
            raise RecordError("versions lacks torch")
        return self

    def identity_fields(self) -> dict[str, Any]:
        """The fields that determine the results: what a resume has to share."""
        return {
            "model.sha256": self.model.sha256,
            "model.architecture": self.model.architecture,
            "model.normalisation": self.model.normalisation,
            "data.sha256": self.data.sha256,
            "data.ids": self.data.ids_sha256,
            "protocol_sha256": self.protocol_sha256,
            "seed": self.seed,
            "device": self.device.split(":")[0],
            "dtype": self.dtype,
            "threads": self.threads if self.device == "cpu" else None,
            "machine": f"{self.platform}, {self.device_name}",
            "versions.torch": self.versions["torch"],
        }

    def identity(self) -> str:
        """Hash of `identity_fields()`; every shard of the run carries it."""
        return sha256_json(self.identity_fields())

    def to_bytes(self) -> bytes:
        """The manifest as it is written to disk."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest that anybody may have written.

    Args:
        data: The file's bytes.
        where: Name of the file, for the message.

    Raises:
        RecordError: Not a manifest, or one of another format.
    """
    try:
        found = Manifest.model_validate_json(data)
        check_json(data)
        return found
    except ValidationError as error:
        raise RecordError(f"{where}: {explain(error)}") from None
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from None


def explain(error: ValidationError) -> str:
    """Return the first complaint of pydantic, with its place, as one line."""
    complaints = error.errors(include_url=False, include_context=False, include_input=False)
    first = complaints[0]
    if first["loc"] == ("schema_version",):
        return f"written in a format this version cannot read (it reads {MANIFEST_SCHEMA}); update"
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"

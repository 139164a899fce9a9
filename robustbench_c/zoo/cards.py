"""Model cards: what a weight file holds, where it came from, and what was measured on it.

A card is one JSON file beside its weights, `<name>.json` and `<name>.safetensors`. It never
holds a path: the weights are always the neighbour of the same stem. A card may come from a
stranger, so it is read strictly: bounded in size, unknown fields refused.

This module does not import torch, so that names and cards are at hand at once.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from robustbench_c.errors import ModelError, did_you_mean
from robustbench_c.zoo.oneline import first_fault, one_line

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the models that come with the package."""

MAX_CARD_BYTES = 1 << 20

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Text = Annotated[str, Field(max_length=10_000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Size = Annotated[int, Field(ge=1, le=10**6)]
Total = Annotated[int, Field(ge=0, le=2**53)]
Statistics = Annotated[tuple[float, ...], Field(max_length=10**6)]
Plain = bool | int | float | str | None
"""A plain value of an architecture argument."""


class _Record(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TrainedFor(_Record):
    """The threat a model was trained against (not a claim about what it withstands)."""

    norm: Literal["linf", "l2", "l1"]
    """Norm of the perturbation."""
    eps: float = Field(ge=0.0)
    """Radius, in the units of the data's input box."""


class Measured(_Record):
    """An accuracy that was measured, and how to measure it again."""

    accuracy: Rate
    """Share of the samples that are right, in [0, 1]."""
    samples: Annotated[int, Field(ge=1)]
    """How many samples were evaluated."""
    data: Name
    """Name of the data set they came from."""
    command: Text
    """The command that gave this figure."""


class RobustMeasured(Measured):
    """A robust accuracy: the share that is right and stays right under the protocol."""

    threat: TrainedFor
    """Norm and radius it was measured at."""
    protocol: Text
    """The attack or certificate, with steps, step size and restarts: "pgd-40x5, step 0.01"."""


class ExplanationMeasured(_Record):
    """How many explanations are proven to stay as they are, and how many an attack bent."""

    explanation: Text
    """What is explained, and how: "gradient of the predicted logit"."""
    criterion: Text
    """When it counts as bent: "cosine similarity below 0.9"."""
    threat: TrainedFor
    """Norm and radius of the inputs that are possible."""
    certified: Rate
    """Share of the samples whose explanation no such input bends."""
    bent: Rate
    """Share of the samples whose explanation the attack bent."""
    protocol: Text
    """Certificate and attack, with their settings."""
    samples: Annotated[int, Field(ge=1)]
    """How many samples were evaluated."""
    data: Name
    """Name of the data set they came from."""
    command: Text
    """The command that gave these figures."""

    @model_validator(mode="after")
    def _shares_fit(self) -> ExplanationMeasured:
        if self.certified + self.bent > 1:
            raise ValueError("certified and bent add up to more than all samples")
        return self


class TrainingCost(_Record):
    """What it took to train a model, with what the model that it started from had taken."""

    samples: Annotated[int, Field(ge=0)]
    """Training samples seen: epochs times their number."""
    seconds: float = Field(ge=0.0)
    """Seconds of training, without measurements."""
    device: Text
    """The processor, and its threads."""


class LayerSparsity(_Record):
    """The weight of one linear or convolution layer."""

    name: Text
    """Path of the layer in the network."""
    weights: Total
    """Entries of its weight; 0 where it shares that of an earlier layer."""
    nonzero_weights: Total
    """Those that are not 0."""


class Sparsity(_Record):
    """How sparse a network is, and what it takes: counted by `save` on what it writes."""

    sparsity: Rate
    """Share of zeros among the weights of the linear and convolution layers."""
    weights: Total
    """These weights."""
    nonzero_weights: Total
    """Those that are not 0."""
    parameters: Total
    """All parameters: weights, biases, normalisation."""
    nonzero_parameters: Total
    """Those that are not 0."""
    macs: Total
    """Multiply-adds of one sample in these layers; FLOPs are twice as many."""
    nonzero_macs: Total
    """The same with the weights that are not 0."""
    dense_bytes: Total
    """Bytes of parameters and buffers."""
    file_bytes: Total
    """Bytes of the weight file."""
    layers: Annotated[tuple[LayerSparsity, ...], Field(max_length=10_000)]
    """Layer by layer."""

    @model_validator(mode="after")
    def _adds_up(self) -> Sparsity:
        for total, name in ((self.weights, "weights"), (self.nonzero_weights, "nonzero_weights")):
            if total != sum(getattr(layer, name) for layer in self.layers):
                raise ValueError(f"{name} is not the sum over the layers")
        if abs(self.sparsity * self.weights - (self.weights - self.nonzero_weights)) > 0.5:
            raise ValueError("sparsity is not the share of zeros among the weights")
        return self


class Draft(_Record):
    """Everything on a card but the hash of the weight file, which `save` fills in."""

    schema_version: Literal[1] = 1
    """Version of this schema."""
    name: Name
    """The model's name: also the stem of its two files."""
    architecture: Name
    """A name of `zoo.architectures()`."""
    arguments: dict[str, Plain | tuple[Plain, ...]] = Field({}, max_length=32)
    """Arguments of the architecture; those left out take their defaults."""
    input_shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=4)]
    """Shape of one sample, without the batch: (channels, height, width) or (features,)."""
    classes: Annotated[tuple[Text, ...], Field(min_length=2, max_length=10**5)]
    """Names of the classes, in the order of the logits."""
    mean: Statistics | None = None
    """Subtracted from the input by the model itself: one per channel or feature."""
    std: Statistics | None = None
    """Divides the input after the mean: one per channel or feature, above 0."""
    data: Name | None = None
    """Data set it was trained on; null when not known."""
    dataset_sha256: Sha256 | None = None
    """Content hash of the training split."""
    recipe: Name | None = None
    """Name of the training recipe."""
    method: Text | None = None
    """How the recipe trains: its objective, and its sparse method: "ibp, sparse: dynamic"."""
    recipe_sha256: Sha256 | None = None
    """Hash of the recipe file."""
    seed: int | None = None
    """Seed of the training run."""
    epochs: Annotated[int, Field(ge=0)] | None = None
    """Epochs trained."""
    cost: TrainingCost | None = None
    """What training took; null when not known."""
    start: Name | None = None
    """The trained model that training started from; null for random weights."""
    threat: TrainedFor | None = None
    """What it was trained against; null for standard training."""
    licence: Text
    """Licence of the weights, an SPDX name where there is one."""
    clean_accuracy: Measured | None = None
    """Accuracy on clean samples; null until measured."""
    robust: Annotated[tuple[RobustMeasured, ...], Field(max_length=1000)] = ()
    """Robust accuracies, each with its protocol and command."""
    explanations: Annotated[tuple[ExplanationMeasured, ...], Field(max_length=1000)] = ()
    """How stable its explanations are, each with its protocol and command."""
    sparsity: Sparsity | None = None
    """Counted by `save` where a tenth of the weights or more are 0; absent otherwise."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out absent fields that older cards do not have: those stay as they were."""
        fields: dict[str, Any] = handler(self)
        for name in ("method", "sparsity"):
            if fields[name] is None:
                del fields[name]
        return fields

    @model_validator(mode="after")
    def _normalisation_fits(self) -> Draft:
        check_normalisation(self.mean, self.std, self.input_shape)
        return self


class Card(Draft):
    """The card of a weight file: a draft, and the hash that ties it to the file."""

    sha256: Sha256
    """SHA-256 of the weight file's bytes."""


def check_normalisation(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None, input_shape: tuple[int, ...]
) -> None:
    """Check that mean and std fit an input shape.

    Raises:
        ValueError: One without the other, a wrong length, a value that is not finite, or std <= 0.
    """
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise ValueError("mean and std go together: give both or neither")
    axis = "channel" if len(input_shape) > 1 else "feature"
    for label, values in (("mean", mean), ("std", std)):
        if len(values) != input_shape[0]:
            raise ValueError(
                f"{label} has {len(values)} values; an input of shape {input_shape} "
                f"needs {input_shape[0]}, one per {axis}"
            )
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{label} has a value that is not finite")
    if min(std) <= 0:
        raise ValueError(f"std has the value {min(std):g}; every value must be above 0")


def read_card(path: Path) -> Card:
    """Read and check a card.

    Raises:
        ModelError: No such file, larger than 1 MiB, not JSON, or not a card.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"cannot read the model card {path}: not a regular file")
        with path.open("rb") as stream:
            text = stream.read(MAX_CARD_BYTES + 1)
    except OSError as error:
        raise ModelError(f"cannot read the model card {path}: {error.strerror}") from error
    if len(text) > MAX_CARD_BYTES:
        raise ModelError(f"{path} is not a model card: larger than 1 MiB")
    try:
        return Card.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ModelError(f"{path} is not a model card: {first_fault(error)}") from error


def names() -> list[str]:
    """Return the names of the models in the zoo, sorted."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def card(name: str) -> Card:
    """Return the card of a model in the zoo.

    Raises:
        ModelError: No such model (with a hint), or its card is broken.
    """
    if name not in names():
        known = names()
        hint = did_you_mean(name, known) if known else "the zoo is empty"
        raise ModelError(f"no model named '{one_line(name)}' in the zoo; {hint}")
    return read_card(WEIGHTS / f"{name}.json")

"""Recipes: all that a trained model depends on, in one TOML file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from robustbench_c.errors import UsageError, did_you_mean
from robustbench_c.files import read_toml
from robustbench_c.training.config import Federation, Frozen, TrainConfig

_WITHOUT_CLIENTS = {"keep": "last", "ema_decay": None}
"""Settings of `TrainConfig` that simulated clients do not go with, and what they are there."""


class Normalisation(Frozen):
    """Mean and standard deviation per channel (images) or per feature, inside the model."""

    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means, but {len(self.std)} standard deviations")
        if min(self.std) <= 0:
            raise ValueError("a standard deviation is not positive")
        return self


class Architecture(Frozen):
    """An architecture of the zoo and its arguments."""

    name: str
    arguments: dict[str, Any] = Field({})


class ObjectiveChoice(Frozen):
    """A training objective and its settings (for "pgd": norm, eps, steps, step_size)."""

    name: str
    settings: dict[str, Any] = Field({})

    @property
    def threat(self) -> dict[str, Any]:
        """Its norm and eps, or those of its base where it has none; empty where none has both."""
        for settings in (self.settings, _base_settings(self.settings)):
            if settings.keys() >= {"norm", "eps"}:
                return {key: settings[key] for key in ("norm", "eps")}
        return {}

    @model_validator(mode="after")
    def _has_an_attack(self) -> Self:
        """What can be said of numbers without the data; types are looked at when it is bound."""
        for settings in (self.settings, _base_settings(self.settings)):
            eps, steps, size = (_number(settings, key) for key in ("eps", "steps", "step_size"))
            if eps is not None and not 0 <= eps < math.inf:
                raise ValueError(f"eps is {eps:g}: it must be finite and not negative")
            if steps is not None and steps < 1:
                raise ValueError(f"steps is {steps:g}: it must be at least 1, or nothing attacks")
            if size is not None and not (0 < size < math.inf or size == eps == 0):
                raise ValueError(f"step_size is {size:g}: it must be positive and finite")
        return self


class SparseChoice(Frozen):
    """A sparse training method and its settings (for all: sparsity, allocation, structure)."""

    method: str
    settings: dict[str, Any] = Field({})


class Recipe(Frozen):
    """One training, from the data to the numbers.

    Attributes:
        name: Name of the trained model and of its files.
        data: Registered data set; its training split is used.
        architecture: What to build.
        normalise: "data" for the training split's own mean and standard deviation, numbers, or
            None. It becomes part of the model.
        initialise: "ibp" for weights that suit interval bounds, None for the architecture's own.
        start: A trained model to start from, by name or path; its architecture is the recipe's.
        objective: What to minimise.
        sparse: How the model is made and kept sparse; None for a dense one.
        federated: The simulated clients that train it; None for training on all data.
        train: The numbers of the training.
        licence: Licence of the weights.
        description: What it is, in one line.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: str
    architecture: Architecture
    normalise: Literal["data"] | Normalisation | None = None
    initialise: Literal["ibp"] | None = None
    start: str | None = None
    objective: ObjectiveChoice
    sparse: SparseChoice | None = None
    federated: Federation | None = None
    train: TrainConfig
    licence: str = "MIT"
    description: str = ""

    @model_validator(mode="after")
    def _is_dense_where_federated(self) -> Self:
        if self.federated and self.sparse:
            raise ValueError(
                "federated training is of dense models: leave out the clients, or what is sparse"
            )
        return self

    @property
    def method(self) -> str:
        """How it trains, in a few words for the card: `ibp, sparse: dynamic`."""
        sparse = f", sparse: {self.sparse.method}" if self.sparse else ""
        return f"{self.objective.name}{sparse}{', federated' if self.federated else ''}"

    @property
    def sha256(self) -> str:
        """Hash of every setting; one that recipes did not have at first counts where it is set."""
        content = self.model_dump(mode="json")
        for later in ("initialise", "start", "sparse", "federated"):
            if content[later] is None:
                del content[later]
        content["train"] = self.train.content()
        if self.train.cycles == 1:
            del content["train"]["cycles"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def known_recipes() -> dict[str, Path]:
    """The shipped recipes: name of the file without its ending, and where it lies."""
    folder = Path(str(resources.files("robustbench_c.training") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by its name, or any by its path.

    Raises:
        UsageError: No such recipe, or the file is not a legal one.
    """
    known = known_recipes()
    path = known.get(name_or_path, Path(name_or_path))
    if name_or_path not in known and path.suffix != ".toml":
        raise UsageError(f"no recipe '{name_or_path}'; {did_you_mean(name_or_path, list(known))}")
    return _checked(read_toml(path, "recipe"), f"the recipe {path}")


def override(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the given options in place of its own.

    A new architecture comes without the old one's arguments. A new eps or number of steps scales
    the step size, unless it is given too, so that `step_size * steps / eps` stays; a new number of
    epochs scales the warm-up. A new norm or eps counts for a `base` that had the same as well. With
    clients, a recipe that had none loses its own keep and ema_decay, which they do not go with.

    Args:
        recipe: The one to change.
        options: None means "as in the recipe". Keys: name, data, architecture, arguments (of the
            architecture); objective (a shipped recipe's name: its objective and initialisation);
            norm, eps, steps, step_size (of the objective); sparsity, allocation, structure (of the
            sparse method); clients, alpha, local_epochs (of simulated clients); start; any field
            of `TrainConfig`.

    Raises:
        UsageError: The recipe's objective has no such setting, or a value is not legal.
    """
    given = {key: value for key, value in options.items() if value is not None}
    content = recipe.model_dump()
    for key in ("name", "data", "start"):
        content[key] = given.pop(key, content[key])
    architecture = given.pop("architecture", recipe.architecture.name)
    if architecture != recipe.architecture.name:
        content["architecture"] = {"name": architecture}
    if "arguments" in given:
        content["architecture"]["arguments"] = given.pop("arguments")
    objective = given.pop("objective", None)
    if objective is not None:
        other = load_recipe(objective)
        content["objective"] = other.objective.model_dump()
        content["initialise"] = other.initialise
    settings = content["objective"]["settings"]
    inner = _base_settings(settings)
    before, before_inner = dict(settings), dict(inner)
    for key in [key for key in given if key in ("norm", "eps", "steps", "step_size")]:
        owner = next((each for each in (settings, inner) if key in each), None)
        if owner is None:
            raise UsageError(
                f"the objective '{content['objective']['name']}' has no {key}: "
                "leave it out, or choose another recipe (robust-train --list)"
            )
        owner[key] = given.pop(key)
    for key in ("norm", "eps"):  # a base that had the same is trained on: take it along
        if key in settings and key in inner and before[key] == before_inner[key]:
            inner[key] = settings[key]
    for old, new in ((before, settings), (before_inner, inner)):
        fixed = old.get("step_size") != new.get("step_size")
        if new.keys() >= {"eps", "steps", "step_size"} and not fixed:
            new["step_size"] = _scaled_step(old, new)
    for key in [key for key in given if key in ("sparsity", "allocation", "structure")]:
        if content["sparse"] is None:
            raise UsageError(
                f"recipe '{recipe.name}' trains a dense model and has no {key}: "
                "leave it out, or choose a sparse recipe (robust-train --list)"
            )
        content["sparse"]["settings"][key] = given.pop(key)
    shared = {key: given.pop(key) for key in list(given) if key in Federation.model_fields}
    if shared:
        if content["federated"] is None and "clients" not in shared:
            raise UsageError(f"recipe '{recipe.name}' has no clients: give a number of them, too")
        if content["federated"] is None:
            content["train"] |= _WITHOUT_CLIENTS
        content["federated"] = (content["federated"] or {}) | shared
    if given.get("epochs", 0) > 0:
        content["train"]["eps_warmup_epochs"] *= given["epochs"] / recipe.train.epochs
    content["train"] |= given
    return _checked(content, f"recipe '{recipe.name}' with these options")


def left_out(recipe: Recipe, chosen: Recipe, options: Mapping[str, Any]) -> list[str]:
    """The recipe's own settings, as in its file, that `override` left out for the clients."""
    if recipe.federated is not None or chosen.federated is None:
        return []
    own = {key: getattr(recipe.train, key) for key in _WITHOUT_CLIENTS if options.get(key) is None}
    return [f"{key} = {json.dumps(v)}" for key, v in own.items() if v != _WITHOUT_CLIENTS[key]]


def _number(settings: Mapping[str, Any], key: str) -> float | None:
    value = settings.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _base_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an objective's base, to change; an empty table where there are none."""
    base = settings.get("base")
    inner = base.get("settings") if isinstance(base, dict) else None
    return inner if isinstance(inner, dict) else {}


def _scaled_step(old: Mapping[str, Any], new: Mapping[str, Any]) -> Any:
    if (old["eps"], old["steps"]) == (new["eps"], new["steps"]) or not old["eps"]:
        return new["step_size"]
    return old["step_size"] * (new["eps"] / old["eps"]) * (old["steps"] / max(new["steps"], 1))


def _checked(content: Mapping[str, Any], what: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{what}: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """The most telling fault of a validation (one of our own, else the first), and its place."""
    faults = error.errors()
    first = next((fault for fault in faults if fault["type"] == "value_error"), faults[0])
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message

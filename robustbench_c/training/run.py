"""From a recipe to weights and a card in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from attacks.threat import feature_ranges
from certify.sparse.layers import empty_layers
from certify.training import ibp_initialisation
from robustbench_c import data as datasets
from robustbench_c import zoo
from robustbench_c.data import Dataset
from robustbench_c.errors import ModelError, RunError, UsageError
from robustbench_c.training.alone import alone_in
from robustbench_c.training.checkpoint import CHECKPOINT
from robustbench_c.training.federated import fit_federated
from robustbench_c.training.log import EpochRow
from robustbench_c.training.loop import FitResult, fit
from robustbench_c.training.measure import accuracy
from robustbench_c.training.objectives import bind, short_attack, verifier
from robustbench_c.training.progress import Progress
from robustbench_c.training.randomness import derive, generator, seeded_modules
from robustbench_c.training.recipe import Normalisation, Recipe, first_fault
from robustbench_c.training.samples import place
from robustbench_c.training.sparsity import bind_sparse
from robustbench_c.zoo.devices import parse_device
from robustbench_c.zoo.nets.registry import resolve

_TINY = 0.01
"""Share of a feature's range below which an eps is called tiny."""


@dataclass(frozen=True)
class Trained:
    """What a recipe gave.

    Attributes:
        weights: The safetensors file, its card beside it.
        rows: The log.
        clean_accuracy: On the test split; None where the data have none.
        empty: Linear and convolution layers that pruning left without a weight.
    """

    weights: Path
    rows: tuple[EpochRow, ...]
    clean_accuracy: float | None
    empty: tuple[str, ...] = ()


def run(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train a recipe's model; the folder then holds `<name>.safetensors` and `<name>.json`.

    While it trains, every other training in this folder is refused.

    Args:
        recipe: What to train.
        folder: Where everything goes; made where missing.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        data_dir: Where the data lie, for sets that are not shipped.
        resume: Go on from the folder's checkpoint.
        overwrite: Train anew, though the folder holds a model or a checkpoint of this name.
        progress: Is told of each step.

    Raises:
        HarnessError: See `fit`; also an unknown data set, architecture, objective or device, and
            a folder that is in use. No card is written unless training came to its end.
    """
    where = _device(device)
    train = datasets.load(recipe.data, split="train", data_dir=data_dir)
    mean_std = _normalisation(recipe, train)
    lower, upper = train.lower.to(where), train.upper.to(where)
    settings = recipe.objective.settings
    small = small_notice(recipe.objective.threat, train)
    objective = bind(recipe.objective.name, settings, lower, upper)
    noise = derive(recipe.train.seed, "validation")
    attack = short_attack(recipe.objective.threat, lower, upper, noise)
    sparsify = bind_sparse(recipe.sparse) if recipe.sparse else None
    start = _start(recipe) if recipe.start else None
    draft = _draft(recipe, train, mean_std, start)
    with seeded_modules(derive(recipe.train.seed, "weights")):
        model = _build(recipe, train, mean_std)
    if recipe.initialise == "ibp":
        ibp_initialisation(model, generator(recipe.train.seed, "weights"))
    if start is not None:
        _begin_at(model, start, recipe)
    watcher = progress or Progress()
    with alone_in(folder, watcher.note) as check:
        _claim(folder, recipe.name, resume, overwrite)
        if small is not None:
            watcher.note(f"notice: {small}")
        later = {"federated"} if recipe.federated is None else set()
        trainer: Callable[..., FitResult]
        if recipe.federated is None:
            proof = verifier(recipe.objective.name, settings, lower, upper)
            trainer = partial(fit, verifier=proof, sparsify=sparsify)
        else:
            trainer = partial(fit_federated, federation=recipe.federated)
        try:
            result = trainer(
                model,
                train,
                objective,
                recipe.train,
                folder=folder,
                resume=resume,
                device=where,
                attack=attack,
                identity={
                    "recipe": recipe.model_dump(
                        mode="json", exclude={"train", "description", *later}
                    ),
                    "start": start.sha256 if start else None,
                },
                title=recipe.name,
                progress=watcher,
                check=check,
            )
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(f"out of memory on {where}: lower the batch size") from error
        # The test split is touched once, here; a path has none.
        measured = None
        if train.split == "train":
            test = datasets.load(recipe.data, split="test", data_dir=data_dir)
            measured = _measure(result.model, test, folder / f"{recipe.name}.safetensors", where)
        found = {"clean_accuracy": measured, "cost": _cost(result.rows, start, where)}
        check()
        zoo.save(result.model, draft.model_copy(update=found), folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    weights = folder / f"{recipe.name}.safetensors"
    clean = measured.accuracy if measured else None
    empty = empty_layers(result.model) if recipe.sparse else ()
    return Trained(weights, result.rows, clean, empty)


def small_notice(threat: Mapping[str, Any], data: Dataset) -> str | None:
    """A warning when eps is a tiny share of what features range over: nothing attacks these."""
    if not threat or threat["eps"] == 0:
        return None
    shares = threat["eps"] / feature_ranges(data.lower, data.upper, data.shape)
    few = int((shares < _TINY).sum())
    if not few:
        return None
    return (
        f"eps {threat['eps']:g} is in the data's own units: below {_TINY:.0%} of the range of "
        f"{few} of {shares.numel()} features, hardly an attack on these (at least "
        f"{float(shares.min()):.2g}, at most {float(shares.max()):.2g} of a range); give a larger "
        "--eps, or data whose features have one scale"
    )


def _start(recipe: Recipe) -> zoo.LoadedModel:
    """The trained model to start from, which has to be of the recipe's architecture."""
    assert recipe.start is not None
    loaded = zoo.load(recipe.start)
    wanted = resolve(recipe.architecture.name, recipe.architecture.arguments).describe()
    if loaded.architecture != wanted:
        raise UsageError(
            f"'{recipe.name}' is to be {wanted}; its start {recipe.start} is a "
            f"{loaded.architecture}"
        )
    return loaded


def _cost(
    rows: Sequence[EpochRow], start: zoo.LoadedModel | None, device: torch.device
) -> zoo.TrainingCost | None:
    """What training took in all; None where the start's own cost is not known."""
    seen = sum(row.samples for row in rows)
    seconds = sum(row.seconds for row in rows)
    if start is not None:
        before = start.card.cost if start.card else None
        if before is None:
            return None
        seen, seconds = seen + before.samples, seconds + before.seconds
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return zoo.TrainingCost(samples=seen, seconds=seconds, device=f"{device.type}{threads}")


def _begin_at(model: nn.Module, start: zoo.LoadedModel, recipe: Recipe) -> None:
    try:
        model.load_state_dict(start.module.state_dict())
    except RuntimeError as error:
        raise UsageError(
            f"'{recipe.name}' and its start {recipe.start} differ in what they normalise or in "
            "their number of classes: give the --start of a model of the same data"
        ) from error


def _draft(
    recipe: Recipe,
    train: Dataset,
    mean_std: Normalisation | None,
    start: zoo.LoadedModel | None,
) -> zoo.Draft:
    """The card without what is measured; made before training, so that no error comes after it."""
    threat = recipe.objective.threat
    try:
        return zoo.Draft(
            name=recipe.name,
            architecture=recipe.architecture.name,
            arguments=recipe.architecture.arguments,
            input_shape=train.shape,
            classes=train.classes,
            mean=mean_std.mean if mean_std else None,
            std=mean_std.std if mean_std else None,
            data=train.name,
            dataset_sha256=train.sha256,
            recipe=recipe.name,
            method=recipe.method,
            recipe_sha256=recipe.sha256,
            seed=recipe.train.seed,
            epochs=recipe.train.epochs,
            start=start.name if start else None,
            threat=zoo.TrainedFor(**threat) if threat else None,
            licence=recipe.licence,
        )
    except ValidationError as error:
        raise UsageError(
            f"no card can be made for '{recipe.name}': {first_fault(error)}"
        ) from error


def _measure(model: nn.Module, test: Dataset, weights: Path, device: torch.device) -> zoo.Measured:
    samples = place(test, device)
    return zoo.Measured(
        accuracy=accuracy(model, samples.x, samples.y),
        samples=len(test),
        data=test.name,
        command=f"robust-eval --model {weights} --data {test.name} --eps 0 --steps 1 --restarts 1",
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return parse_device(name)


def _normalisation(recipe: Recipe, train: Dataset) -> Normalisation | None:
    if recipe.normalise != "data":
        return recipe.normalise
    axes = [axis for axis in range(train.x.dim()) if axis != 1]
    std, mean = torch.std_mean(train.x.double(), dim=axes, correction=0)
    std = torch.where(std > 0, std, 1.0)  # a constant feature stays constant
    return Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _build(recipe: Recipe, train: Dataset, mean_std: Normalisation | None) -> nn.Module:
    model = zoo.build(
        recipe.architecture.name, train.shape, len(train.classes), **recipe.architecture.arguments
    )
    if mean_std is None:
        return model
    return zoo.Normalized(model, mean_std.mean, mean_std.std, train.shape)


def _claim(folder: Path, name: str, resume: bool, overwrite: bool) -> None:
    """Make sure that nothing is lost which the user did not give up.

    The old model goes first: a training that fails must not leave a card beside another log.
    """
    ours = [folder / f"{name}.json", folder / f"{name}.safetensors", folder / CHECKPOINT]
    if overwrite and not resume:
        try:
            for path in ours:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"cannot remove {path}: {error.strerror}") from error
    if ours[0].exists() and not (resume and ours[2].exists()):  # both: killed at its very end
        raise UsageError(
            f"{folder} already holds a trained '{name}': --overwrite trains it anew, "
            "or give another --out"
        )
    if ours[2].exists() and not resume:
        raise UsageError(
            f"{folder} holds an unfinished training: --resume goes on, --overwrite starts anew"
        )

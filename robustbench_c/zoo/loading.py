"""Loading a model by name or from a file: strictly, and without running its code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from robustbench_c.errors import ModelError, did_you_mean
from robustbench_c.zoo import cards
from robustbench_c.zoo.cards import Card, check_normalisation, read_card
from robustbench_c.zoo.devices import move, parse_device
from robustbench_c.zoo.files import TORCH_SUFFIXES, is_there, read_safetensors, read_torch
from robustbench_c.zoo.hashing import state_hash
from robustbench_c.zoo.normalized import Normalized
from robustbench_c.zoo.oneline import one_line
from robustbench_c.zoo.packed import unpack
from robustbench_c.zoo.sources import SourceFile, stamp
from robustbench_c.zoo.spec import Asked, Spec, from_asked, from_card
from robustbench_c.zoo.states import State, fit, misfit, unnest, unwrap
from robustbench_c.zoo.trusted import (
    Foreign,
    adopt,
    demand_trust,
    from_factory,
    from_pickle,
    from_program,
)

_FACTORY = re.compile(r".+:[A-Za-z_]\w*")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be evaluated.

    Attributes:
        module: In evaluation mode, no parameter requires a gradient, normalisation inside.
        name: The card's name, the file's stem, or `module:factory`.
        card: The model's card, where there is one.
        sha256: Hash of the state (see `state_hash`): the same weights of the same architecture
            give the same hash from any file format.
        architecture: The architecture with its arguments, or what made the module.
        notices: What was done to the file's content, one line each.
        sources: The files it was read from; none of a module that was given as such.
    """

    module: nn.Module
    name: str
    card: Card | None
    sha256: str
    architecture: str
    notices: tuple[str, ...]
    sources: tuple[SourceFile, ...] = field(default=(), kw_only=True)


def load(
    name_or_path: str,
    device: torch.device | str = "cpu",
    *,
    arch: str | None = None,
    arch_args: Mapping[str, object] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_classes: int | None = None,
    trust_checkpoint: bool = False,
) -> LoadedModel:
    """Load a model of the zoo, a weight file, or (when trusted) what code makes.

    Args:
        name_or_path: A zoo name; a `.safetensors` file, its card beside it or not; a torch
            checkpoint; an `.onnx` network; `package.module:factory`, `file.py:factory` or an
            exported `.pt2` program, which run code.
        device: Where the model goes.
        arch: Architecture of a file without a card.
        arch_args: Its arguments, or those of the factory.
        mean: Normalisation of a model without a card, one value per channel or feature.
        std: As mean.
        input_shape: Shape of one sample. With a card: checked against it.
        n_classes: Number of classes. With a card: checked against it.
        trust_checkpoint: Allow the file to run code.

    Raises:
        ModelError: One line on what is wrong with the model, and what to do.
        UsageError: No such device.
    """
    target = parse_device(device)
    asked = Asked(
        arch=arch,
        arguments=dict(arch_args or {}),
        mean=None if mean is None else tuple(float(value) for value in mean),
        std=None if std is None else tuple(float(value) for value in std),
        input_shape=None if input_shape is None else tuple(input_shape),
        n_classes=n_classes,
    )
    before = {path: stamp(path) for path in _files(name_or_path)}
    found = _load(name_or_path, asked, target, trust_checkpoint)
    sources = (SourceFile(path, was) for path, was in before.items() if was is not None)
    return replace(found, sources=tuple(sources))


def _files(name_or_path: str) -> tuple[Path, ...]:
    """The files that a model may be read from: weights and card, or code."""
    path = Path(name_or_path)
    if name_or_path in cards.names():
        path = cards.WEIGHTS / f"{name_or_path}.safetensors"
    elif _FACTORY.fullmatch(name_or_path) and not is_there(path):
        path = Path(name_or_path.rpartition(":")[0])
    card = (path.with_suffix(".json"),) if path.suffix.lower() == ".safetensors" else ()
    return path, *card


def _load(name_or_path: str, asked: Asked, target: torch.device, trust: bool) -> LoadedModel:
    path = Path(name_or_path)
    if name_or_path in cards.names():
        return _from_safetensors(cards.WEIGHTS / f"{name_or_path}.safetensors", asked, target)
    if _FACTORY.fullmatch(name_or_path) and not is_there(path):
        demand_trust(name_or_path, trust)
        foreign = from_factory(name_or_path, asked.arguments)
        return _finish_foreign(foreign, foreign.architecture, asked, target, [])
    if not is_there(path):
        raise ModelError(_not_found(name_or_path))
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _from_safetensors(path, asked, target)
    if suffix == ".pt2":
        demand_trust(name_or_path, trust)
        if asked.arguments:
            raise ModelError(f"{path} is a whole program: architecture arguments do not apply")
        return _finish_foreign(from_program(path), path.stem, asked, target, [])
    if suffix == ".onnx" or path.name.lower().endswith(".onnx.gz"):
        return _from_onnx(path, asked, target)
    if suffix in TORCH_SUFFIXES or path.is_dir():
        return _from_torch(path, asked, target, trust)
    known = ", ".join((".safetensors", *TORCH_SUFFIXES, ".onnx", ".pt2", "file.py:factory"))
    raise ModelError(
        f"{one_line(path)}: '{one_line(path.suffix)}' is no model file; known: {known}"
    )


def _from_safetensors(path: Path, asked: Asked, device: torch.device) -> LoadedModel:
    card_path = path.with_suffix(".json")
    card = read_card(card_path) if card_path.exists() else None
    tensors = read_safetensors(path, card.sha256 if card else None)
    state = State(tensors) if card else unwrap(tensors, [])
    spec = from_card(card, asked, str(path)) if card else from_asked(state, asked, str(path))
    return _finish(state, spec, card.name if card else path.stem, card, str(path), device)


def _from_onnx(path: Path, asked: Asked, device: torch.device) -> LoadedModel:
    from robustbench_c.foreign import load_onnx

    label = one_line(path)
    if asked.arguments:
        raise ModelError(f"{label} is a whole network: architecture arguments do not apply")
    network = load_onnx(path)
    if network.dtype != torch.float32:
        raise ModelError(f"{label} computes in {network.dtype}; data are float32")
    if asked.input_shape not in (None, network.input_shape):
        raise ModelError(
            f"{label} takes samples of shape {network.input_shape}, but the data's have "
            f"the shape {asked.input_shape}"
        )
    if asked.n_classes is not None and asked.n_classes > network.classes:
        raise ModelError(
            f"{label} has {network.classes} outputs, but the data {asked.n_classes} classes"
        )
    foreign = Foreign(network, "onnx", f"ONNX: {network.network.code}")
    name = path.name.removesuffix(".gz").removesuffix(".onnx")
    return _finish_foreign(foreign, name, asked, device, [])


def _from_torch(path: Path, asked: Asked, device: torch.device, trust: bool) -> LoadedModel:
    notices: list[str] = []
    held = unnest(read_torch(path, trust), str(path), notices)
    if isinstance(held, nn.Module):
        if asked.arguments:
            raise ModelError(f"{path} holds a whole module: architecture arguments do not apply")
        return _finish_foreign(from_pickle(held), path.stem, asked, device, notices)
    state = unwrap(held, notices)
    return _finish(state, from_asked(state, asked, str(path)), path.stem, None, str(path), device)


def _finish(
    state: State, spec: Spec, name: str, card: Card | None, label: str, device: torch.device
) -> LoadedModel:
    network = spec.skeleton()
    state.tensors = unpack(state.tensors, network, label)
    fault = misfit(state.tensors, network)
    if fault:
        raise ModelError(f"{label} does not fit {spec.family.describe()}: {fault}")
    tensors = fit(state, network, label)
    network = network.to_empty(device="cpu")  # not initialised at random: draws no numbers
    network.load_state_dict(tensors)
    architecture = spec.family.describe()
    return _ready(
        spec.normalise(network), name, card, architecture, architecture, state.notices, device
    )


def _finish_foreign(
    foreign: Foreign, name: str, asked: Asked, device: torch.device, notices: list[str]
) -> LoadedModel:
    if asked.arch is not None:
        raise ModelError(f"{one_line(name)} brings its own architecture: --arch does not apply")
    module = adopt(foreign, one_line(name), notices)
    if asked.mean is not None or asked.std is not None:
        if asked.input_shape is None:
            raise ModelError(f"{one_line(name)}: mean and std need the input shape")
        try:
            check_normalisation(asked.mean, asked.std, asked.input_shape)
        except ValueError as error:
            raise ModelError(str(error)) from error
        module = Normalized(module, asked.mean or (), asked.std or (), asked.input_shape)
    if any(part.training for part in module.modules()):
        notices.append("the model was in training mode: it was set to evaluation mode")
    return _ready(module, name, None, foreign.architecture, foreign.identity, notices, device)


def _ready(
    module: nn.Module,
    name: str,
    card: Card | None,
    architecture: str,
    identity: str,
    notices: list[str],
    device: torch.device,
) -> LoadedModel:
    module.eval().requires_grad_(False)
    sha256 = state_hash(module, identity)
    move(module, device, one_line(name))
    return LoadedModel(module, name, card, sha256, architecture, tuple(notices))


def _not_found(name: str) -> str:
    shown = one_line(name)
    if Path(name).suffix in (".safetensors", ".onnx", ".pt2", *TORCH_SUFFIXES) or "/" in name:
        return f"no such file: {shown}"
    known = cards.names()
    hint = did_you_mean(name, known) if known else "the zoo is empty"
    return f"no model named '{shown}' in the zoo, and no such file; {hint}"

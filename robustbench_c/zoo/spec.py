"""Settling what a weight file is: from its card, or from what the caller says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from robustbench_c.errors import ModelError
from robustbench_c.zoo.cards import Card, Draft, check_normalisation
from robustbench_c.zoo.nets.base import Architecture
from robustbench_c.zoo.nets.mlp import Mlp
from robustbench_c.zoo.nets.registry import REGISTRY, architectures, resolve, skeleton
from robustbench_c.zoo.normalized import Normalized
from robustbench_c.zoo.states import State, misfit

_USUAL_SHAPES = ((1, 28, 28), (3, 32, 32))


@dataclass(frozen=True)
class Asked:
    """What the caller of `load` said about the model; None where nothing was said."""

    arch: str | None
    arguments: Mapping[str, object]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    input_shape: tuple[int, ...] | None
    n_classes: int | None


@dataclass(frozen=True)
class Spec:
    """A network fully described, but for its weights."""

    family: Architecture
    input_shape: tuple[int, ...]
    n_classes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def skeleton(self) -> nn.Module:
        """Return the network without memory, on the meta device."""
        return skeleton(self.family, self.input_shape, self.n_classes)

    def normalise(self, network: nn.Module) -> nn.Module:
        """Return the network with its normalisation in front, if it has any."""
        if self.mean is None or self.std is None:
            return network
        return Normalized(network, self.mean, self.std, self.input_shape)


def from_draft(draft: Draft) -> Spec:
    """Return what a card describes.

    Raises:
        ModelError: An architecture or an argument that does not exist.
    """
    family = resolve(draft.architecture, draft.arguments)
    return Spec(family, draft.input_shape, len(draft.classes), draft.mean, draft.std)


def from_card(card: Card, asked: Asked, label: str) -> Spec:
    """Return what a card describes, after holding it against what the caller said.

    Raises:
        ModelError: The two contradict each other.
    """
    spec = from_draft(card)
    arguments = dict(spec.family)
    pairs: list[tuple[str, object, object]] = [
        ("architecture", asked.arch, card.architecture),
        ("input shape", asked.input_shape, spec.input_shape),
        ("number of classes", asked.n_classes, spec.n_classes),
        ("mean", asked.mean, spec.mean),
        ("std", asked.std, spec.std),
    ]
    if asked.arguments:
        wanted = dict(resolve(card.architecture, {**arguments, **asked.arguments}))
        pairs += [(key, wanted[key], arguments[key]) for key in wanted]
    for what, said, written in pairs:
        if said is not None and said != written:
            raise ModelError(f"{label}: the {what} asked for is {said}, its card says {written}")
    return spec


def from_asked(state: State, asked: Asked, label: str) -> Spec:
    """Return what the caller says of a file without a card.

    Raises:
        ModelError: Something needed was not said, or does not fit.
    """
    if asked.arch is None:
        raise ModelError(
            f"{label} has no card: name its architecture with --arch "
            f"({', '.join(architectures())}){_suggest(state, asked)}"
        )
    family = resolve(asked.arch, asked.arguments)
    if asked.input_shape is None or asked.n_classes is None:
        raise ModelError(f"{label} has no card: the input shape and number of classes are needed")
    if state.mean is not None and (asked.mean is not None or asked.std is not None):
        raise ModelError(f"{label} holds its own mean and std: do not give others")
    mean = asked.mean if state.mean is None else state.mean
    std = asked.std if state.std is None else state.std
    try:
        check_normalisation(mean, std, asked.input_shape)
    except ValueError as error:
        raise ModelError(f"{label}: {error}") from error
    return Spec(family, asked.input_shape, asked.n_classes, mean, std)


def _suggest(state: State, asked: Asked) -> str:
    """Return a hint when the tensors fit exactly one architecture."""
    matrices = [tensor for tensor in state.tensors.values() if tensor.ndim == 2]
    if not matrices:
        return ""
    shapes = (asked.input_shape,) if asked.input_shape else _USUAL_SHAPES
    n_classes = asked.n_classes or matrices[-1].shape[0]
    widths = [tensor.shape[0] for tensor in matrices[:-1]]
    shapes = (*shapes, (matrices[0].shape[1],))
    fitting: list[str] = []
    for name, shape in itertools.product(REGISTRY, shapes):
        try:
            family = resolve(name, {"widths": widths} if name == Mlp.name else {})
            if misfit(state.tensors, skeleton(family, shape, n_classes)) is None:
                fitting.append(family.describe())
        except ModelError:
            continue  # an architecture that cannot take this shape does not fit
    distinct = sorted(set(fitting))
    return f"; its shapes fit {distinct[0]}" if len(distinct) == 1 else ""

"""Masks: which units of a network's prunable weights are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from certify.sparse.budget import Allocation, Budget, allocate
from certify.sparse.layers import Structure, prunable, unit_axes


@dataclass(frozen=True, eq=False)
class Layout:
    """What can be pruned of one network, and in which units.

    Attributes:
        shapes: Shapes of the prunable weights.
        axes: The axis whose slices are units; None where each weight is one.
        biases: Names of the biases that are zeroed with their filters (structured only).
    """

    shapes: Mapping[str, tuple[int, ...]]
    axes: Mapping[str, int | None]
    biases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, structure: Structure = "weights") -> Layout:
        """Return the layout of a network."""
        axes = unit_axes(model, structure)
        known = dict(model.named_parameters())
        paired = {name: name.removesuffix("weight") + "bias" for name in axes if axes[name] == 0}
        biases = {name: bias for name, bias in paired.items() if bias in known}
        return cls({n: tuple(w.shape) for n, w in prunable(model).items()}, axes, biases)

    def budget(self, sparsity: float, allocation: Allocation) -> Budget:
        """See `allocate`."""
        return allocate(self.shapes, self.axes, sparsity, allocation)

    def scores(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each unit's size, (units,): the absolute value, or the L2 norm of a slice."""
        found = {}
        for name, axis in self.axes.items():
            value = tensors[name].detach()
            flat = value.reshape(-1, 1) if axis is None else value.movedim(axis, 0).flatten(1)
            found[name] = flat.abs().squeeze(1) if axis is None else flat.norm(dim=1)
        return found


@dataclass(frozen=True, eq=False)
class Masks:
    """Which units are kept.

    Attributes:
        layout: Of the network that they are for.
        units: By weight, bool (units,).
    """

    layout: Layout
    units: Mapping[str, Tensor]

    @classmethod
    def full(cls, model: nn.Module, layout: Layout) -> Masks:
        """Keep everything."""
        scores = layout.scores(prunable(model))
        return cls(layout, {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()})

    @classmethod
    def best(cls, layout: Layout, scores: Mapping[str, Tensor], budget: Budget) -> Masks:
        """Keep the units with the highest scores, in each of the budget's groups.

        Exactly as many as the budget says, ties broken by position.
        """
        kept: dict[str, Tensor] = {}
        for names, count in budget.groups:
            kept |= best_of({name: scores[name] for name in names}, count)
        return cls(layout, {name: kept[name] for name in layout.axes})

    @classmethod
    def random(cls, model: nn.Module, layout: Layout, budget: Budget, draw: Generator) -> Masks:
        """Keep units at random; `draw` is on the CPU, so that all devices get the same."""
        likes = layout.scores(prunable(model))
        return cls.best(layout, random_scores(likes, draw), budget)

    @cached_property
    def full_masks(self) -> dict[str, Tensor]:
        """By weight, a bool tensor of its shape; by bias likewise, where biases go with filters."""
        found = {}
        for name, axis in self.layout.axes.items():
            shape, kept = self.layout.shapes[name], self.units[name]
            if axis is None:
                found[name] = kept.view(shape)
                continue
            sizes = [-1 if i == axis else 1 for i in range(len(shape))]
            found[name] = kept.view(sizes).expand(shape)
            if name in self.layout.biases:
                found[self.layout.biases[name]] = kept
        return found

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set the pruned weights of a network to zero."""
        known = dict(model.named_parameters())
        for name, kept in self.full_masks.items():
            known[name].masked_fill_(~kept, 0.0)

    @torch.no_grad()
    def apply_to_gradients(self, model: nn.Module) -> None:
        """Set the gradients of the pruned weights to zero."""
        known = dict(model.named_parameters())
        for name, kept in self.full_masks.items():
            gradient = known[name].grad
            if gradient is not None:
                gradient.masked_fill_(~kept, 0.0)

    def counts(self) -> dict[str, int]:
        """Weights (not units) that each layer keeps."""
        return {name: int(self.full_masks[name].sum()) for name in self.layout.axes}

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that is pruned, counted."""
        total = sum(mask.numel() for name, mask in self._weights())
        return 1 - sum(self.counts().values()) / total

    def _weights(self) -> list[tuple[str, Tensor]]:
        return [(name, self.full_masks[name]) for name in self.layout.axes]

    def changes(self, later: Masks) -> tuple[int, int]:
        """How many units the later masks dropped, and how many they grew."""
        dropped = grown = 0
        for name, kept in self.units.items():
            dropped += int((kept & ~later.units[name]).sum())
            grown += int((~kept & later.units[name]).sum())
        return dropped, grown

    def each(self, change: Callable[[Tensor], Tensor]) -> Masks:
        """The same masks elsewhere (on a device, copied ...)."""
        return Masks(self.layout, {name: change(kept) for name, kept in self.units.items()})


def best_of(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Mark the `count` highest of several score vectors together."""
    flat = torch.cat(list(scores.values()))
    order = flat.sort(descending=True, stable=True).indices[:count]
    marked = torch.zeros_like(flat, dtype=torch.bool)
    marked[order] = True
    parts = torch.split(marked, [len(score) for score in scores.values()])
    return dict(zip(scores, parts, strict=True))


def random_scores(likes: Mapping[str, Tensor], draw: Generator) -> dict[str, Tensor]:
    """Uniform scores of the given shapes, drawn on the CPU."""
    return {n: torch.rand(v.shape, generator=draw).to(v.device) for n, v in likes.items()}

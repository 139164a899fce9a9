"""Making a pruned model physically smaller: without dead channels, its zeros not written."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from attacks.classifier import exact_passes
from certify.errors import UnsupportedError
from certify.sparse.shrink import shrink
from robustbench_c.errors import CheckFailedError, ModelError
from robustbench_c.zoo.cards import Card, Draft
from robustbench_c.zoo.nets.base import widths_of
from robustbench_c.zoo.nets.registry import resolve
from robustbench_c.zoo.normalized import Normalized
from robustbench_c.zoo.saving import save

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}
"""By how much logits may differ, in parts of the largest one."""

_TOGETHER = 256


@dataclass(frozen=True)
class Deployed:
    """A model that was made smaller.

    Attributes:
        card: Of the smaller one, in the folder beside its weights.
        widths: Neurons or channels of each layer but the last, before and after.
        differences: Largest difference of the logits in parts of the largest logit, by type; empty
            where all channels were kept, and with them every weight as it is.
        kept: Why all channels were kept, where no more was known of the network.
    """

    card: Card
    widths: tuple[tuple[int, ...], tuple[int, ...]]
    differences: dict[torch.dtype, float]
    kept: str | None = None


def deploy(module: nn.Module, draft: Draft, x: Tensor, folder: Path) -> Deployed:
    """Write a smaller model of the same function: dead channels removed, sparse weights as CSR.

    What was measured of the larger model is not on the card of the smaller one.

    Args:
        module: A network of the draft's architecture, bare or in `Normalized`.
        draft: What the module is; `name` is that of the new model.
        x: Samples (n, *shape), n >= 1, on which the logits have to stay as they are.
        folder: Where to; made when it is not there.

    Raises:
        CheckFailedError: The logits differ by more than `TOLERANCES`; nothing is written.
        ModelError: The module is not what the draft says.
        RunError: The folder cannot be written.
    """
    whole, kept = module, None
    try:
        whole = _shrunk(module)
        differences = {kind: _difference(module, x, kind) for kind in TOLERANCES}
    except UnsupportedError as error:
        kept, differences = str(error), {}
    before, after = widths_of(module), widths_of(whole)
    if after != before:
        draft = _resized(draft, after)
    for kind, found in differences.items():
        if not found <= TOLERANCES[kind]:
            raise CheckFailedError(
                f"{draft.name}: without its dead channels the logits differ by {found:.2g} of the "
                f"largest in {kind}; at most {TOLERANCES[kind]:.0e} is rounding; nothing is written"
            )
    measured = {"clean_accuracy": None, "robust": (), "explanations": ()}
    card = save(whole, draft.model_copy(update=measured), folder)
    return Deployed(card, (before, after), differences, kept)


def _resized(draft: Draft, widths: tuple[int, ...]) -> Draft:
    family = resolve(draft.architecture, draft.arguments)
    try:
        small = family.resized(widths)
    except ValueError as error:
        raise ModelError(f"{draft.name}: {error}") from error
    changed = {key: value for key, value in small if value != getattr(family, key)}
    return draft.model_copy(update={"arguments": draft.arguments | changed})


def _shrunk(module: nn.Module) -> nn.Module:
    if not isinstance(module, Normalized):
        return shrink(module)
    whole = deepcopy(module)
    whole.model = shrink(module.model)
    return whole


def _difference(module: nn.Module, x: Tensor, kind: torch.dtype) -> float:
    """Largest difference of the logits, all computed in one type, in parts of the largest."""
    before = deepcopy(module).to(kind).eval()
    with exact_passes(), torch.no_grad():
        first, second = (_logits(m, x.to(kind)) for m in (before, _shrunk(before)))
    return float((first - second).abs().max() / first.abs().max().clamp_min(1e-300))


def _logits(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([network(part) for part in torch.split(x, _TOGETHER)]).double()

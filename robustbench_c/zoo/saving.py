"""Saving a model as the zoo keeps it: weights and card, side by side."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from robustbench_c.errors import ModelError
from robustbench_c.files import write_atomically
from robustbench_c.zoo.cards import Card, Draft
from robustbench_c.zoo.normalized import Normalized
from robustbench_c.zoo.packed import pack
from robustbench_c.zoo.spec import from_draft
from robustbench_c.zoo.states import State, fit, misfit


def save(module: nn.Module, draft: Draft, folder: Path) -> Card:
    """Write `<name>.safetensors` and `<name>.json`, ready for `load`.

    The same weights give the same bytes; those that are sparse enough are written as CSR (see
    `robustbench_c.zoo.packed`), which changes nothing in what `load` returns. The weights are
    written before the card, each file whole or not at all; new weights beside an older card are
    refused by `load`, never mixed up.

    Args:
        module: A network of the draft's architecture, bare or in `Normalized`, on any device.
        draft: Everything on the card but the hash of the file.
        folder: Where to; made when it is not there.

    Returns:
        The card as written.

    Raises:
        ModelError: The module is not what the draft says, or holds a NaN or Inf.
        RunError: The folder cannot be written.
    """
    spec = from_draft(draft)
    network = module
    if isinstance(module, Normalized):
        network = module.model
        expected = spec.normalise(nn.Identity())
        if not isinstance(expected, Normalized) or not (
            torch.equal(expected.mean, module.mean.cpu())
            and torch.equal(expected.std, module.std.cpu())
        ):
            raise ModelError(f"{draft.name}: mean and std of the module are not those of the card")
    elif draft.mean is not None:
        raise ModelError(f"{draft.name}: the card has mean and std, the module is not Normalized")
    tensors = {key: tensor.detach().cpu() for key, tensor in network.state_dict().items()}
    skeleton = spec.skeleton()
    fault = misfit(tensors, skeleton)
    if fault:
        raise ModelError(f"{draft.name} does not fit {spec.family.describe()}: {fault}")
    fitted = fit(State(tensors), skeleton, draft.name)
    # -0, which masks leave, becomes 0. Cloned: tensors may share memory, which safetensors refuses.
    plain = {key: t + 0.0 if t.is_floating_point() else t.clone() for key, t in fitted.items()}
    data = safetensors.torch.save(pack({key: t.contiguous() for key, t in plain.items()}))
    card = Card(**dict(draft), sha256=hashlib.sha256(data).hexdigest())
    write_atomically(folder / f"{draft.name}.safetensors", data)
    write_atomically(
        folder / f"{draft.name}.json", (card.model_dump_json(indent=2) + "\n").encode()
    )
    return card

"""The identity of a loaded model: a hash of its state, whatever file it came from."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn


def state_hash(module: nn.Module, identity: str) -> str:
    """Return the SHA-256 of a model's state and of the text that says how it computes.

    Names, shapes, dtypes and bytes of parameters and buffers count (so mean and std do, which
    are buffers of `Normalized`); file format, device and order of the keys do not.

    Args:
        module: The model.
        identity: The architecture with every argument, or the hash of its code.
    """
    digest = hashlib.sha256(json.dumps(["robustbench-c model 1", identity]).encode())
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        header = [name, list(tensor.shape), str(tensor.dtype)]
        digest.update(json.dumps(header).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def byte_count(module: nn.Module) -> int:
    """Return the bytes of all parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

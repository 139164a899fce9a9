"""Adversarial examples on disk: one safetensors file beside each shard of an attack."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes, make_folder, read_bytes

MAX_BYTES = 4 << 30


def folder(run: Path, step: str) -> Path:
    """Where the adversarial examples of a step lie."""
    return run / "adversarial" / step


def write(run: Path, step: str, name: str, ids: Tensor, x: Tensor, adversarial: Tensor) -> None:
    """Write the broken samples of one shard, clean and adversarial.

    Args:
        run: Folder of the run.
        step: Name of the attack's step.
        name: Stem of the file.
        ids: int64, (n,).
        x: Clean samples, float32, (n, *shape).
        adversarial: float32, like `x`.
    """
    tensors = {"ids": ids, "clean": x, "adversarial": adversarial}
    data = safetensors.torch.save({k: v.cpu().contiguous() for k, v in tensors.items()})
    make_folder(folder(run, step))
    atomic_write_bytes(folder(run, step) / f"{name}.safetensors", data)


def read(run: Path, step: str) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return (ids, clean, adversarial) of all stored examples of a step, or None without any.

    Raises:
        RecordError: A file is damaged or not of this form.
    """
    ids, clean, adversarial = [], [], []
    for path in sorted(folder(run, step).glob("*.safetensors")):
        try:
            held = safetensors.torch.load(read_bytes(run, path, MAX_BYTES))
        except (safetensors.SafetensorError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {error}") from None
        if set(held) != {"ids", "clean", "adversarial"}:
            raise RecordError(f"{path} does not hold ids, clean and adversarial")
        a, b, c = held["ids"], held["clean"], held["adversarial"]
        if a.dtype != torch.int64 or a.dim() != 1 or b.dtype != torch.float32:
            raise RecordError(f"{path}: ids have to be int64 (n,), samples float32")
        if c.dtype != torch.float32 or b.shape != c.shape or len(a) != len(b):
            raise RecordError(f"{path}: clean and adversarial samples differ in shape")
        ids.append(a)
        clean.append(b)
        adversarial.append(c)
    if not ids:
        return None
    try:
        return torch.cat(ids), torch.cat(clean), torch.cat(adversarial)
    except RuntimeError as error:
        raise RecordError(f"{folder(run, step)}: files of different shapes: {error}") from None

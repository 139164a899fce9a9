"""Adversarial examples on disk: one safetensors file for each shard of an attack.

A file has the name of its shard and is written before it, so a shard is never without its
examples; what a crash leaves is a file without a shard, which is passed over. The folder itself
says that a run keeps its examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from leaderboards import shard
from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes, make_folder, read_bytes, remove_temporaries
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore

MAX_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class Examples:
    """The broken samples of one shard.

    Attributes:
        ids: int64, (n,).
        clean: Clean samples, float32, (n, *shape).
        adversarial: Adversarial examples, float32, likewise.
    """

    ids: Tensor
    clean: Tensor
    adversarial: Tensor


def _folder(store: RunStore, step: str) -> Path:
    return store.folder / "adversarial" / step


def kept(store: RunStore, step: str) -> bool:
    """Whether the run keeps the examples of a step."""
    return _folder(store, step).is_dir()


def keep(store: RunStore, step: str) -> None:
    """Note that the run keeps the examples of a step, and remove what a crash left of them.

    Raises:
        RecordError: Shards are there whose examples were not kept, or no folder can be made.
    """
    if not kept(store, step) and store.shard_paths(step):
        raise RecordError(
            f"{store.folder} was begun without keeping adversarial examples: add --overwrite "
            "to run it again with them"
        )
    make_folder(_folder(store, step))
    remove_temporaries(store.folder, _folder(store, step))


def write(store: RunStore, step: str, sample_ids: Ids, examples: Examples) -> None:
    """Write the broken samples of the shard that is about `sample_ids`."""
    tensors = {name: value.cpu().contiguous() for name, value in vars(examples).items()}
    name = Path(shard.file_name(sample_ids)).with_suffix(".safetensors")
    atomic_write_bytes(_folder(store, step) / name, safetensors.torch.save(tensors))


def read(store: RunStore, step: str) -> Iterator[Examples]:
    """Yield the stored examples of each shard of a step.

    Raises:
        RecordError: A file is damaged or not of this form.
    """
    for path in store.shard_paths(step):
        file = _folder(store, step) / path.with_suffix(".safetensors").name
        if file.exists():
            yield _decode(read_bytes(store.folder, file, MAX_BYTES), file)


def _decode(data: bytes, path: Path) -> Examples:
    try:
        held = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise RecordError(f"{path} is damaged: {error}") from None
    if set(held) != {"ids", "clean", "adversarial"}:
        raise RecordError(f"{path} does not hold ids, clean and adversarial")
    found = Examples(**held)
    ids, clean, adversarial = found.ids, found.clean, found.adversarial
    if (
        ids.dtype != torch.int64
        or ids.dim() != 1
        or {clean.dtype, adversarial.dtype} != {torch.float32}
    ):
        raise RecordError(f"{path}: ids have to be int64 (n,), samples float32")
    if clean.shape != adversarial.shape or clean.dim() < 2 or not 0 < len(ids) == len(clean):
        raise RecordError(f"{path}: ids, clean and adversarial samples differ in shape")
    return found

"""The state of a training run after an epoch: whole on disk, or the one before it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from robustbench_c.errors import RunError
from robustbench_c.files import write_atomically
from robustbench_c.training.log import EpochRow

CHECKPOINT = "checkpoint.pt"
_FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """All that the epochs to come depend on; random streams are derived, not stored.

    Attributes:
        identity: What was trained, as JSON values (settings, data hash, objective ...): another
            identity must not go on from here.
        model: State dict of the model.
        ema: State dict of the averaged model, or None.
        optimiser: State dict of the optimiser.
        sparsifier: State of the sparse training method.
        best: State dict of the best epoch's model so far, where that is kept.
        rows: The log so far, one row for each epoch done.
        torch_version: Under which it was written.
    """

    identity: dict[str, Any]
    model: dict[str, Any]
    ema: dict[str, Any] | None
    optimiser: dict[str, Any]
    sparsifier: dict[str, Any]
    rows: list[EpochRow]
    torch_version: str
    best: dict[str, Any] | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint.

    Raises:
        RunError: It cannot be written; the one before is still there.
    """
    tensors = ("model", "ema", "best", "sparsifier")
    content = {field: getattr(checkpoint, field) for field in tensors} | {
        "format": _FORMAT,
        "identity": json.dumps(checkpoint.identity),
        "optimiser": checkpoint.optimiser,
        "rows": [asdict(row) for row in checkpoint.rows],
        "torch": checkpoint.torch_version,
    }
    # Through memory: torch.save itself reports a full disk as a RuntimeError without the reason.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(folder / CHECKPOINT, buffer.getvalue())


def load_checkpoint(
    folder: Path, identity: dict[str, Any], device: torch.device
) -> Checkpoint | None:
    """Read the folder's checkpoint, or None where there is none.

    Raises:
        RunError: It is damaged, or belongs to another training.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    try:
        content = torch.load(io.BytesIO(stored), map_location=device, weights_only=True)
        checkpoint = Checkpoint(
            identity=json.loads(content["identity"]),
            model=content["model"],
            ema=content["ema"],
            optimiser=content["optimiser"],
            sparsifier=content["sparsifier"],
            rows=[EpochRow(**row) for row in content["rows"]],
            torch_version=content["torch"],
            best=content.get("best"),
        )
        known = content["format"] == _FORMAT
    # A damaged pickle can raise anything at all.
    except Exception as error:
        raise RunError(f"{path} is damaged: remove it and train anew") from error
    if not known:
        raise RunError(f"{path} was written by another version: remove it and train anew")
    difference = next(_differences(checkpoint.identity, identity), None)
    if difference is not None:
        raise RunError(
            f"{path} belongs to another training ({difference}): "
            "ask for the same one, or give another folder"
        )
    return checkpoint


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            inner = f"{name}.{key}" if name else key
            yield from _differences(there.get(key), here.get(key), inner)
    elif there != here:
        yield f"{name} is {json.dumps(there)} there and {json.dumps(here)} here"

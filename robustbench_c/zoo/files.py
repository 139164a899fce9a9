"""Reading weight files that strangers made: no code runs unless the user trusts the file."""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from robustbench_c.errors import ModelError
from robustbench_c.zoo.oneline import one_line

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".bin")
MAX_BYTES = 8 << 30

_NEEDS_CODE = re.compile(
    r"GLOBAL (\S+) (?:was not an allowed|whose module)|unrecognized function (.+)|TorchScript"
    r"|must be imported|allowlisted"
)
"""What torch says when a checkpoint is sound but asks for more than tensors."""


def is_there(path: Path) -> bool:
    """Whether there is something of this name; a name that no file can have is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def precheck(path: Path) -> None:
    """Refuse what cannot be a model file: absent, a folder, empty, a web page, too large.

    Raises:
        ModelError: With what it is instead.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder; name a weight file in it")
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is not a regular file")
        with path.open("rb") as stream:
            head = stream.read(512)
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ModelError(f"no such file: {path}") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    start = head.lstrip().lower()
    if not head:
        raise ModelError(f"{path} is empty")
    if not head.strip(b"\0"):
        raise ModelError(f"{path} holds zeros where a model begins: copy or download it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ModelError(f"{path} is a web page, not a model: download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer: fetch the file itself with 'git lfs pull'")
    if size > MAX_BYTES:
        raise ModelError(f"{path} is {size / 2**30:.1f} GiB; the limit is {MAX_BYTES >> 30} GiB")


def read_safetensors(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Args:
        path: The file.
        sha256: The hash its card gives, or None without a card.

    Raises:
        ModelError: Not such a file, truncated, or not the file the card speaks of.
    """
    precheck(path)
    data = path.read_bytes()  # read once: what is hashed is what is loaded
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ModelError(
            f"{path} is not the file its card speaks of: "
            f"sha256 {found[:12]}..., the card says {sha256[:12]}..."
        )
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path} is not a safetensors file, or is corrupt: {one_line(error, 120)}"
        ) from error


def read_torch(path: Path, trust_checkpoint: bool) -> object:
    """Return what a torch file (zip or legacy format) holds, with its tensors on the CPU.

    Args:
        path: The file.
        trust_checkpoint: Let a pickle run code, where it holds more than tensors.

    Raises:
        ModelError: Truncated, corrupt, not a torch file, or in need of code but not trusted.
    """
    precheck(path)
    if not trust_checkpoint:
        _refuse_archives(path)
    if (bad := _fails_checksum(path)) is not None:
        raise ModelError(f"{path} is damaged: its part {bad} fails its checksum; copy it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle can raise anything at all.
    except Exception as error:
        if not trust_checkpoint:
            raise _refusal(path, error) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded, code and all: {type(error).__name__}: {one_line(error)}"
        ) from error


def _refuse_archives(path: Path) -> None:
    """Refuse two archives that are unsafe to open, or that torch itself never writes."""
    try:
        tarfile.open(path, "r:").close()  # as torch tells whether it is one
    except (tarfile.TarError, OSError, ValueError):
        pass
    else:  # runs code in torch before 2.6, even with weights_only
        raise ModelError(f"{path} {_needs_trust('the legacy tar format')}")
    if (_unpacked_bytes(path) or 0) > path.stat().st_size:
        raise ModelError(f"{path} is a compressed archive, which torch does not write")


def _refusal(path: Path, error: Exception) -> ModelError:
    needs = _NEEDS_CODE.search(str(error))
    if needs:
        what = needs.group(1) or needs.group(2) or "more than tensors"
        return ModelError(f"{path} {_needs_trust(one_line(what, 80))}")
    if isinstance(error, EOFError) or "unexpected EOF" in str(error) or _is_cut_zip(path):
        return ModelError(f"{path} is truncated or damaged: copy or download it again")
    return ModelError(f"{path} is not a torch checkpoint, or is corrupt ({type(error).__name__})")


def _fails_checksum(path: Path) -> str | None:
    """Name of a part of a zip file whose checksum is wrong, which torch does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    # Not a zip file, or a damaged one, which can raise anything: torch says more of it.
    except Exception:
        return None


def _unpacked_bytes(path: Path) -> int | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    # Not a zip file, or a damaged one, which can raise anything.
    except Exception:
        return None


def _is_cut_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04" and _unpacked_bytes(path) is None


def _needs_trust(what: str) -> str:
    return (
        f"is a pickle that asks for code ({what}); if you trust its source, "
        "give --trust-checkpoint, or save its state dict alone"
    )

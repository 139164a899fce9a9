"""Devices by name, and moving a model to one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_c.errors import ModelError, UsageError


def parse_device(device: torch.device | str) -> torch.device:
    """Return a device that exists on this machine.

    Raises:
        UsageError: No such device.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"no device named '{device}': use cpu, cuda or cuda:1") from error
    if found.type not in ("cpu", "cuda"):
        raise UsageError(f"'{device}' is not supported: use cpu, cuda or cuda:1")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"no CUDA device '{device}' on this machine: use cpu")
    return found


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device: to CUDA from pinned memory, without waiting for it."""
    target = torch.device(device)
    if target.type != "cuda" or tensor.is_cuda:
        return tensor.to(target)
    return tensor.pin_memory().to(target, non_blocking=True)


def move(module: nn.Module, device: torch.device, name: str) -> None:
    """Move a module in place.

    Raises:
        ModelError: The device has not enough memory; the module is on the CPU then.
    """
    try:
        module.to(device)
    except torch.cuda.OutOfMemoryError as error:
        module.to("cpu")
        raise ModelError(f"{name} does not fit into the free memory of {device}") from error

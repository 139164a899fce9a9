"""Open parts of a search, in memory as far as there is room, and in a temporary file beyond."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import torch
from torch import Tensor

from attacks import memory

_BYTES = 256 << 20
"""Memory for open parts."""

Kept = tuple[Tensor, ...]


@dataclass(frozen=True)
class Slot:
    """Where tensors lie in the file, and what they are."""

    place: int
    size: int
    forms: tuple[tuple[torch.dtype, torch.Size, torch.device], ...]


@dataclass(eq=False)
class Shelf:
    """Keeps tensors, and gives back the very same bits.

    Attributes:
        held: Bytes of those in memory.
    """

    held: int = 0
    _file: IO[bytes] | None = None
    _end: int = 0
    _free: dict[int, list[int]] = field(default_factory=dict)

    def put(self, tensors: Kept) -> Kept | Slot:
        """Keep tensors; what is returned gives them back.

        Raises:
            OSError: The temporary file cannot be written.
        """
        size = sum(t.nbytes for t in tensors)
        if self.held + size <= memory.room(_BYTES):
            self.held += size
            return tensors
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as this does
        places = self._free.get(size)
        place = places.pop() if places else self._end
        self._end = max(self._end, place + size)
        self._file.seek(place)
        for tensor in tensors:
            self._file.write(tensor.detach().cpu().contiguous().numpy().tobytes())
        return Slot(place, size, tuple((t.dtype, t.shape, t.device) for t in tensors))

    def take(self, kept: Kept | Slot) -> Kept:
        """Give back what was kept, once."""
        if not isinstance(kept, Slot):
            self.held -= sum(t.nbytes for t in kept)
            return kept
        assert self._file is not None
        self._file.seek(kept.place)
        data = self._file.read(kept.size)
        self._free.setdefault(kept.size, []).append(kept.place)
        found, begin = [], 0
        for dtype, shape, device in kept.forms:
            size = shape.numel() * dtype.itemsize
            flat = np.frombuffer(data[begin : begin + size], dtype=np.uint8).copy()
            found.append(torch.from_numpy(flat).view(dtype).view(shape).to(device))
            begin += size
        return tuple(found)

    def drop(self, kept: Kept | Slot) -> None:
        """Forget what was kept."""
        if isinstance(kept, Slot):
            self._free.setdefault(kept.size, []).append(kept.place)
        else:
            self.held -= sum(t.nbytes for t in kept)

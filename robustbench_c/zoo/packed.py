"""Sparse weights in a file: compressed rows (CSR) under suffixed names, exact to the bit.

A weight of shape (r, ...) is a matrix of r rows. `NAME.csr_values` are its entries row by row,
`NAME.csr_columns` their columns, and `NAME.csr_rows` (r + 1) where each row begins among them.
Columns and rows are of the first type that holds them: uint8, int16, int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from robustbench_c.errors import ModelError

_SUFFIXES = (".csr_values", ".csr_columns", ".csr_rows")
_INTEGERS = (torch.uint8, torch.int16, torch.int32)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_ANYWAY = 256 << 20
_TIMES = 1000
"""Weights may unpack to this many bytes anyway, or to so many times what the file has of them."""


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with those weights as CSR of which that takes at most half the bytes."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _least(tensor, _bits(tensor)) < _size(tensor):
            packed |= {name + s: part for s, part in zip(_SUFFIXES, _csr(tensor), strict=True)}
        else:
            packed[name] = tensor
    return packed


def packed_bytes(module: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers as `save` would write them."""
    tensors = [t.detach() for t in chain(module.parameters(), module.buffers())]
    return sum(_least(tensor, tensor) for tensor in tensors)  # where -0 is 0


def unpack(tensors: Mapping[str, Tensor], network: nn.Module, label: str) -> dict[str, Tensor]:
    """Return the tensors with what `pack` made of a network's weights undone.

    Everything is checked before memory is asked for: the file may be anybody's.

    Args:
        tensors: As in the file.
        network: Whose weights they are; on the meta device.
        label: Name of the file, for messages.

    Raises:
        ModelError: A weight that no matrix of that shape gives, or far larger than its file.
    """
    found = dict(tensors)
    shapes = {
        name: value.shape
        for name, value in network.state_dict().items()
        if name not in found and all(name + suffix in found for suffix in _SUFFIXES)
    }
    stored = _size(*(found[name + suffix] for name in shapes for suffix in _SUFFIXES))
    dense = sum(found[n + _SUFFIXES[0]].element_size() * s.numel() for n, s in shapes.items())
    if dense > max(_ANYWAY, _TIMES * stored):
        raise ModelError(
            f"{label}: its sparse weights of {stored:,} bytes would unpack to {dense:,}; at most "
            f"{_TIMES} times as many are allowed"
        )
    for name, shape in shapes.items():
        parts = [found.pop(name + suffix) for suffix in _SUFFIXES]
        if (fault := _fault(shape, *parts)) is not None:
            raise ModelError(f"{label}: {name} is no sparse weight: {fault}")
        values, columns, rows = parts
        row = torch.repeat_interleave(torch.arange(len(rows) - 1), rows.long().diff())
        found[name] = values.new_zeros(shape)
        found[name].view(shape[0], -1)[row, columns.long()] = values
    return found


def _least(tensor: Tensor, there: Tensor) -> int:
    """Bytes of a tensor as CSR where that is half of its own or less, else its own.

    Args:
        tensor: The tensor.
        there: Not 0 where it has an entry.
    """
    dense = _size(tensor)
    if tensor.dim() < 2 or not tensor.is_floating_point() or not dense:
        return dense
    entries, columns = int(torch.count_nonzero(there)), tensor[0].numel()
    each = tensor.element_size() + _fitting(columns).itemsize
    small = entries * each + (len(tensor) + 1) * _fitting(entries + 1).itemsize
    return small if 2 * small <= dense else dense


def _bits(tensor: Tensor) -> Tensor:
    """Whole numbers that are 0 where the tensor is 0 to the bit, -0 not among them."""
    whole = tensor.contiguous()
    return whole.view(_BITS[whole.element_size()]) if whole.is_floating_point() else whole


def _csr(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    there = _bits(tensor).view(len(tensor), -1) != 0
    row, column = there.nonzero(as_tuple=True)
    starts = torch.zeros(len(tensor) + 1, dtype=torch.int64)
    starts[1:] = there.sum(1).cumsum(0)
    kinds = _fitting(there.shape[1]), _fitting(len(row) + 1)
    return tensor.reshape(there.shape)[row, column], column.to(kinds[0]), starts.to(kinds[1])


def _fitting(count: int) -> torch.dtype:
    """The first type that holds the numbers below a count."""
    return next(kind for kind in _INTEGERS if count - 1 <= torch.iinfo(kind).max)


def _fault(shape: torch.Size, values: Tensor, columns: Tensor, rows: Tensor) -> str | None:
    """What is wrong with a weight's parts, in a few words; None if nothing is."""
    if len(shape) < 2 or any(part.dim() != 1 for part in (values, columns, rows)):
        return "its parts or the weight have the wrong number of dimensions"
    if not values.is_floating_point():
        return f"its values are {values.dtype}"
    if columns.dtype not in _INTEGERS or rows.dtype not in _INTEGERS:
        return "its columns and rows have to be uint8, int16 or int32"
    if len(columns) != len(values) or len(rows) != shape[0] + 1:
        return (
            f"{len(values)} values, {len(columns)} columns and {len(rows)} rows do not make "
            f"{'x'.join(map(str, shape))}"
        )
    starts = rows.long()
    if starts[0] != 0 or starts[-1] != len(values) or bool((starts.diff() < 0).any()):
        return "its rows do not begin one after the other"
    place = columns.long()
    if len(place) and (place.min() < 0 or place.max() >= shape.numel() // shape[0]):
        return "a column is out of range"
    ahead = place.diff() > 0
    ahead[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < len(place))] - 1] = True
    return None if bool(ahead.all()) else "the columns of a row do not ascend"


def _size(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

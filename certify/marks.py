"""Where each sample's numbers get to in a graph: found by marking them with NaN.

Nothing small hides NaN, as it does a difference between values. Where a call with a rule would stop
it (signs, slopes), the mark is set again; what could hide it otherwise (comparisons, whole numbers
made of numbers) is refused, and so are places in the batch that a small batch does not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from certify import slopes
from certify.graph import Graph, Node, Size, has_size, unsupported

aten = torch.ops.aten

_BY_ENTRY: set[Any] = {
    slopes.step,
    slopes.two_slopes,
    slopes.between,
    slopes.elu_slope,
    slopes.softplus_slope,
    slopes.sigmoid_slope,
    slopes.tanh_slope,
    slopes.gelu_slope,
    slopes.silu_slope,
}
_CHOOSING: set[Any] = {aten.where.self, aten.masked_fill.Scalar, aten.masked_fill.Tensor}
"""Entry by entry, but what is not chosen does not count."""

_END = 2**62


class Marks:
    """Which nodes keep the samples' numbers in shares of their own."""

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Tensor],
        whole: Mapping[int, Any],
    ) -> None:
        """Evaluate a graph with each sample in turn marked.

        Args:
            graph: Any; `refuse_hidden` has passed it.
            values: Its inputs, finite, n rows in the batched ones.
            whole: The value of every node at these.
        """
        (self._samples,) = {len(values[name]) for name in graph.batched}
        self._graph, self._whole = graph, whole
        self._own = dict.fromkeys(whole, True)
        for sample in range(self._samples):
            for index, marked in self._spread(values, sample).items():
                self._own[index] &= self._alone(marked, sample)

    def own(self, node: int) -> bool:
        """Whether no sample gets into another's share of a node."""
        return self._own[node]

    def _spread(self, values: Mapping[str, Tensor], sample: int) -> dict[int, Tensor]:
        """Where the mark of one sample is, by node."""
        found = dict(self._whole)
        marked: dict[int, Tensor] = {}
        for name, index in self._graph.inputs.items():
            if name in self._graph.batched and values[name].is_floating_point():
                found[index] = values[name].clone()
                found[index][sample] = torch.nan
                marked[index] = found[index].isnan()
        for node in self._graph.nodes:
            if node.op is None or not any(index in marked for index in node.inputs):
                continue
            args, kwargs = node.call(found.__getitem__, self._samples)
            result = node.op(*args, **kwargs)
            if isinstance(result, Tensor) and result.is_floating_point():
                result = _marked_again(
                    node, result, [marked[i] for i in node.inputs if i in marked]
                )
                marked[node.index] = result.isnan() & ~self._whole[node.index].isnan()
            found[node.index] = result
        return marked

    def _alone(self, marked: Tensor, sample: int) -> bool:
        if not marked.dim() or not len(marked) or len(marked) % self._samples:
            return not bool(marked.any())
        shares = marked.reshape(self._samples, -1).any(1)
        shares[sample] = False
        return not bool(shares.any())


def _marked_again(node: Node, result: Tensor, marks: list[Tensor]) -> Tensor:
    """The value with NaN wherever the call is made of it, though it may have stopped it."""
    op: Any = node.op
    if op is slopes.max_pool_back:  # which chooses by size, within a row
        rows = [mark.flatten(1).any(1) for mark in marks]
        by_row = torch.stack(rows).any(0)
        return result.masked_fill(by_row.view(-1, *(1,) * (result.dim() - 1)), torch.nan)
    tags = getattr(op, "tags", ())
    if op in _BY_ENTRY or (torch.Tag.pointwise in tags and op not in _CHOOSING):
        for mark in marks:
            result = result.masked_fill(mark, torch.nan)
    return result


def refuse_hidden(graph: Graph, values: Mapping[str, Tensor], samples: int) -> None:
    """Raise where marks in a batch of some samples would not show that samples mix.

    Raises:
        UnsupportedError: Whole numbers or truth values are made of the input's numbers; a slice
            or a roll over the samples is by a fixed number of places; windows or triangles
            lie over them.
    """
    numbers = {graph.inputs[n] for n in graph.batched if values[n].is_floating_point()}
    for node in graph.nodes:
        if not numbers.intersection(node.inputs):
            continue
        numbers.add(node.index)
        if node.dtype is not None and not node.dtype.is_floating_point:
            raise unsupported(node)
        if not _by_any_number(node, graph.nodes[node.inputs[0]], samples):
            raise unsupported(node, "takes samples by their place in the batch")


def _by_any_number(node: Node, source: Node, samples: int) -> bool:
    """Whether what a call does with rows of samples shows in a batch of some."""
    rest = node.args[1:]
    if node.op is aten.slice.Tensor:
        dim, start, end = (*rest, *(0, 0, _END)[len(rest) :])[:3]
        size = source.sizes[dim]
        if not isinstance(size, Size):
            return True
        first = start is None or isinstance(start, Size) or 0 <= start < size.slope * samples
        return first and (end is None or isinstance(end, Size) or end >= _END)
    if node.op is aten.roll.default:
        shifts, dims = rest[0], rest[1] if len(rest) > 1 else ()
        sizes = [source.sizes[dim] for dim in dims] or [Size(1, 0)]
        return not any(
            isinstance(size, Size) and isinstance(shift, int) and abs(shift) >= size.slope * samples
            for shift, size in zip(shifts, sizes, strict=True)
        )
    if node.op in (aten.tril.default, aten.triu.default):
        return not has_size(source.sizes[-2:])
    windows = any(word in str(node.op) for word in ("convolution", "pool"))
    return not (windows and has_size(source.sizes[2:]))

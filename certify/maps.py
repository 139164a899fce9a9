"""Linear maps: calls that are affine in the one argument that depends on the input.

Each map knows how to apply its matrix W, its |W|, and its transpose (to rows of coefficients), and
how many products it sums: that is all that any domain needs. No matrix is ever written out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from certify.graph import Node, resolve
from certify.program import Program, at_batch

_FEW_CHANNELS = 4


class LinearMap(ABC):
    """`x -> W x + bias`, on batches.

    Attributes:
        terms: Most products summed for one entry of W x; 0: it only moves entries, exactly.
        spread: Most products summed for one entry of the transpose.
        bias: What is added, broadcastable to the result, or None.
        bias_size: What rounding of the bias is relative to, at least |bias|; or None.
        slack: A map whose |W| bounds how far the true matrix is from this one, or None.
        slack_share: The slack's |W| is at most this share of |W|, and hardly less; None if not so.
    """

    terms: int = 0
    spread: int = 0
    bias: Tensor | None = None
    bias_size: Tensor | None = None
    slack: LinearMap | None = None
    slack_share: float | None = None

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """W x + bias, for x (batch, *in)."""

    @abstractmethod
    def apply_abs(self, x: Tensor, bias: float = 0.0) -> Tensor:
        """|W| x + bias * bias_size, for x (batch, *in)."""

    @abstractmethod
    def adjoint(self, rows: Tensor) -> Tensor:
        """The transpose of W, for rows (rows, *out) to (rows, *in)."""

    def halved(self) -> Callable[[Tensor], Tensor] | None:
        """`x -> W x / 2 + bias`, with the halving done beforehand; None where it has no weights."""
        return None

    def spread_by(
        self, factor: float, gamma: float, tiny: float
    ) -> Callable[[Tensor], Tensor] | None:
        """`x -> factor |W| x + gamma bias_size + slack's bias_size + tiny`, likewise."""
        return None


class Rearrangement(LinearMap):
    """A call with a matrix of no negative entries: views, slices, padding, sums, means.

    Constants among its arguments (what is padded with, what is concatenated) are its bias.
    """

    def __init__(
        self,
        program: Program,
        node: Node,
        source: int,
        terms: int,
        spread: int,
        linear: Node | None = None,
    ) -> None:
        """Take a call that is affine in its argument `source`, other inputs being zero.

        `linear` is the same call without its constant numbers, if it has any.
        """
        self._program, self._node, self._source = program, linear or node, source
        self._from = program.graph.nodes[source]
        self.terms, self.spread = terms, spread
        floats = [i for i in node.inputs if self._is_float(i)]
        if floats or linear is not None:
            self.bias = self._call(node, None, 1, program.constants.__getitem__)
            self.bias_size = self.bias.abs()

    def _is_float(self, index: int) -> bool:
        value = self._program.constants.get(index)
        return isinstance(value, Tensor) and value.is_floating_point()

    def _call(
        self, node: Node, x: Tensor | None, batch: int, constant: Callable[[int], Any]
    ) -> Tensor:
        def zeros(index: int) -> Tensor:
            like = self._program.graph.nodes[index]
            shape = resolve(like.sizes, constant, batch)
            if x is not None:
                return x.new_zeros(shape)
            return torch.zeros(shape, dtype=self._program.dtype, device=like.device)

        def value(index: int) -> Any:
            if index == self._source and x is not None:
                return x
            return constant(index) if index in self._program.constants else zeros(index)

        args, kwargs = node.call(value, batch)
        result: Tensor = node.op(*args, **kwargs)  # type: ignore[misc]  # a call, no input
        return result

    def _linear(self, x: Tensor) -> Tensor:
        batch = self._from.batch(x.shape)

        def constant(index: int) -> Any:
            value = self._program.constant(index, batch)
            return torch.zeros_like(value) if self._is_float(index) else value

        return self._call(self._node, x, batch, constant)

    def apply(self, x: Tensor) -> Tensor:
        """See `LinearMap`."""
        result = self._linear(x)
        if self.bias is None:
            return result
        batch = self._from.batch(x.shape)
        shift: Tensor = at_batch(self.bias, self._node, batch)
        return result + shift

    def apply_abs(self, x: Tensor, bias: float = 0.0) -> Tensor:
        """See `LinearMap`."""
        result = self._linear(x)
        if self.bias_size is None or not bias:
            return result
        size: Tensor = at_batch(self.bias_size, self._node, self._from.batch(x.shape))
        return result + size * bias

    def adjoint(self, rows: Tensor) -> Tensor:
        """The gradient, which of a linear function is its transpose."""
        batch = self._node.batch(rows.shape)
        shape = resolve(self._from.sizes, self._program.constants.get, batch)
        with torch.enable_grad():
            x = rows.new_zeros(shape, requires_grad=True)
            (gradient,) = torch.autograd.grad(
                self._linear(x), x, rows, create_graph=rows.requires_grad
            )
        return gradient


class Weighted(LinearMap):
    """A map by weights of its own, of which other forms are made once.

    Attributes:
        weight: The weights, as the kind of map has them.
    """

    weight: Tensor
    _spread: tuple[tuple[float, float, float], Weighted] | None = None

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Entries of the bias."""

    @abstractmethod
    def like(self, weight: Tensor, bias: Tensor | None) -> Weighted:
        """The same map with other numbers."""

    @cached_property
    def _half(self) -> Weighted:
        return self.like(self.weight / 2, self.bias)

    def halved(self) -> Callable[[Tensor], Tensor]:
        """See `LinearMap`."""
        return self._half.apply

    def spread_by(self, factor: float, gamma: float, tiny: float) -> Callable[[Tensor], Tensor]:
        """See `LinearMap`."""
        key = (factor, gamma, tiny)
        if self._spread is None or self._spread[0] != key:
            self._spread = key, self._spread_out(*key)
        return self._spread[1].apply

    def _spread_out(self, factor: float, gamma: float, tiny: float) -> Weighted:
        size = self.bias_size
        added = None if size is None else size * gamma + tiny
        if self.slack is not None and self.slack.bias_size is not None:
            added = self.slack.bias_size + (tiny if added is None else added)
        wide = self.weight.abs() * factor
        if added is None and tiny:
            added = wide.new_full((self.outputs,), tiny)
        return self.like(wide, added)


class Matrix(Weighted):
    """A matrix product with a constant."""

    def __init__(self, weight: Tensor, bias: Tensor | None, bias_size: Tensor | None) -> None:
        """Take the weight as (in, out)."""
        self.weight, self._abs = weight, weight.abs()
        self.bias, self.bias_size = bias, bias_size
        self.terms, self.spread = weight.shape

    @property
    def outputs(self) -> int:
        """Entries of the bias."""
        return self.weight.shape[1]

    def like(self, weight: Tensor, bias: Tensor | None) -> Matrix:
        """The same map with other numbers."""
        return Matrix(weight, bias, None)

    def apply(self, x: Tensor) -> Tensor:
        """See `LinearMap`."""
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def apply_abs(self, x: Tensor, bias: float = 0.0) -> Tensor:
        """See `LinearMap`."""
        if self.bias_size is None or not bias:
            return x @ self._abs
        return torch.addmm(self.bias_size * bias, x, self._abs)

    def adjoint(self, rows: Tensor) -> Tensor:
        """See `LinearMap`."""
        return rows @ self.weight.T


class Convolution(Weighted):
    """A convolution with constant kernels, transposed or not, of any dimension."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        bias_size: Tensor | None,
        settings: Sequence[Any],
        shape: Sequence[int],
    ) -> None:
        """Take (out, in, *kernel) weights, the settings of `aten.convolution`, and x's shape."""
        self.weight, self._abs = weight, weight.abs()
        by_channel = (1, -1, *(1,) * (len(shape) - 1))
        self.bias = None if bias is None else bias.view(by_channel)
        self.bias_size = None if bias_size is None else bias_size.view(by_channel)
        self.stride, self.padding, self.dilation, self.transposed, _, self.groups = settings
        self.settings, self.shape = tuple(settings), tuple(shape)
        kernel = math.prod(weight.shape[2:])
        per_group = weight.shape[0] // self.groups
        forward, backward = weight.shape[1] * kernel, per_group * kernel
        self.terms, self.spread = (backward, forward) if self.transposed else (forward, backward)

    @property
    def outputs(self) -> int:
        """Entries of the bias."""
        return self.weight.shape[1] * self.groups if self.transposed else len(self.weight)

    def like(self, weight: Tensor, bias: Tensor | None) -> Convolution:
        """The same map with other numbers."""
        return Convolution(weight, bias, None, self.settings, self.shape)

    @property
    def plain(self) -> bool:
        """Whether it is neither transposed, nor grouped, nor dilated."""
        return not self.transposed and self.groups == 1 and all(d == 1 for d in self.dilation)

    @property
    def _few(self) -> bool:
        """Whether it is 2-d and simple, with few channels on the side of its transposed form."""
        simple = self.groups == 1 and all(d == 1 for d in self.dilation)
        return simple and len(self.stride) == 2 and self.weight.shape[1] <= _FEW_CHANNELS

    def apply(self, x: Tensor) -> Tensor:
        """See `LinearMap`."""
        return self._through(x, self.weight, self.bias)

    def apply_abs(self, x: Tensor, bias: float = 0.0) -> Tensor:
        """See `LinearMap`."""
        size = None if self.bias_size is None or not bias else self.bias_size * bias
        return self._through(x, self._abs, size)

    def _through(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        s, p = self.stride, self.padding
        if self._few and self.transposed:
            extra, kernel = self.settings[4], weight.shape[2:]
            size = [(x.shape[2 + i] - 1) * s[i] - 2 * p[i] + kernel[i] + extra[i] for i in range(2)]
            found = _cropped(transposed(x, weight, (s[0], s[1])), p, size)
            return found if bias is None else found + bias
        flat = None if bias is None else bias.flatten()
        result: Tensor = torch.ops.aten.convolution(x, weight, flat, *self.settings)
        return result

    def adjoint(self, rows: Tensor) -> Tensor:
        """See `LinearMap`."""
        s, p, d = self.stride, self.padding, self.dilation
        if self._few and not self.transposed:
            return _cropped(transposed(rows, self.weight, (s[0], s[1])), p, self.shape[1:])
        extra = [0] * len(s)
        if not self.transposed:
            kernel, have, want = self.weight.shape[2:], rows.shape[2:], self.shape[1:]
            extra = [
                want[i] - ((have[i] - 1) * s[i] - 2 * p[i] + d[i] * (kernel[i] - 1) + 1)
                for i in range(len(s))
            ]
        result: Tensor = torch.ops.aten.convolution(
            rows, self.weight, None, s, p, d, not self.transposed, extra, self.groups
        )
        return result


def _cropped(full: Tensor, padding: Sequence[int], size: Sequence[int]) -> Tensor:
    """The image of a size that begins after the padding; zeros where the full one has ended."""
    top, left = padding
    short = [padding[i] + size[i] - full.shape[2 + i] for i in range(2)]
    if max(short) > 0:
        full = F.pad(full, (0, max(0, short[1]), 0, max(0, short[0])))
    return full[:, :, top : top + size[0], left : left + size[1]]


def transposed(rows: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """The transpose of a plain 2-d convolution without padding.

    To few channels (grey or RGB images) oneDNN takes several times as long as one convolution that
    gives all phases of the stride as channels, which are then shuffled into place; it is the same
    sum of products.
    """
    many, few, height, width = weight.shape
    step = stride[0]
    if few > _FEW_CHANNELS or step == 1 or stride != (step, step) or rows.device.type != "cpu":
        return F.conv_transpose2d(rows, weight, stride=stride)
    tall, wide = -(-height // step), -(-width // step)
    phases = F.pad(weight, (0, wide * step - width, 0, tall * step - height))
    phases = phases.view(many, few, tall, step, wide, step).permute(1, 3, 5, 0, 2, 4)
    kernels = phases.reshape(few * step * step, many, tall, wide).flip(2, 3)
    full = F.pixel_shuffle(F.conv2d(rows, kernels, padding=(tall - 1, wide - 1)), step)
    size = [(rows.shape[2 + i] - 1) * step + weight.shape[2 + i] for i in range(2)]
    return full[:, :, : size[0], : size[1]]


def share(slack: Tensor, weight: Tensor) -> float | None:
    """The share of |weight| that the slack is at most, where that is close to it throughout."""
    moves = weight != 0
    part = slack.detach()[moves].double() / weight.detach()[moves].double().abs()
    most = float(part.max()) if len(part) else 0.0
    if not most < 1 or bool(slack[~moves].any()) or bool((part < most * (1 - 1e-3)).any()):
        return None
    return most * (1 + 1e-12)


class Scale(LinearMap):
    """Entries times constants of their own, plus constants."""

    def __init__(self, factor: Tensor, bias: Tensor | None, bias_size: Tensor | None) -> None:
        """Take tensors that broadcast to a sample's share of x, and do not enlarge it."""
        self.factor, self._abs = factor, factor.abs()
        self.bias, self.bias_size = bias, bias_size
        self.terms, self.spread = 4, 4

    def apply(self, x: Tensor) -> Tensor:
        """See `LinearMap`."""
        product = x * over(self.factor, x)
        return product if self.bias is None else product + over(self.bias, x)

    def apply_abs(self, x: Tensor, bias: float = 0.0) -> Tensor:
        """See `LinearMap`."""
        product = x * over(self._abs, x)
        if self.bias_size is None or not bias:
            return product
        return product + over(self.bias_size, x) * bias

    def adjoint(self, rows: Tensor) -> Tensor:
        """See `LinearMap`."""
        return rows * over(self.factor, rows)


def over(values: Tensor, x: Tensor) -> Tensor:
    """Repeat what one sample has several rows of, for each of the samples."""
    if values.dim() == x.dim() > 0 and 1 < len(values) < len(x):
        return values.repeat(len(x) // len(values), *(1,) * (x.dim() - 1))
    return values


Maker = Callable[[Program, Node, int], "LinearMap | None"]
"""From a program, a call, and the input it has to be affine in; None where it is not."""

MAPS: dict[Any, Maker] = {}


def maps(*ops: Any) -> Callable[[Maker], Maker]:
    """Register a maker of maps for operators."""

    def register(maker: Maker) -> Maker:
        MAPS.update(dict.fromkeys(ops, maker))
        return maker

    return register


def affine(program: Program, node: Node) -> list[tuple[int, LinearMap]] | None:
    """Return a call as a sum of maps of its inputs, or None if it is not affine.

    The bias, where there is one, is in the first map.
    """
    maker = MAPS.get(node.op)
    if maker is None:
        return None

    def made() -> list[tuple[int, LinearMap]] | None:
        sources = list(dict.fromkeys(i for i in node.inputs if i not in program.constants))
        found = [maker(program, node, source) for source in sources]
        pairs = [(i, m) for i, m in zip(sources, found, strict=True) if m is not None]
        for _, later in pairs[1:]:
            later.bias = later.bias_size = None
        return pairs if len(pairs) == len(sources) else None

    return program.derived(node.index, "affine", made)

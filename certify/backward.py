"""What autograd calls, rewritten to calls that have rules: slopes of what activations took.

`threshold_backward`, `sigmoid_backward` and `tanh_backward` take the activation's *value*; followed
back to the call that gave it, they become a product with a slope at what that call took. Max
pooling's indices are never looked up: its gradient is a function of what was pooled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from certify import slopes
from certify.graph import Argument, Node, Ref, Size, references, unsupported

aten = torch.ops.aten


@dataclass
class Writer:
    """A list of calls that grows."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> int:
        """Append a call, whose arguments are of this list, and return its place."""
        inputs = tuple(references((node.args, tuple(node.kwargs.values()))))
        self.nodes.append(replace(node, index=len(self.nodes), inputs=inputs))
        return len(self.nodes) - 1

    def emit(
        self, op: Any, args: tuple[Argument, ...], like: Node, kwargs: dict[str, Any] | None = None
    ) -> Ref:
        """Append a call with a value of the form of another's."""
        name = getattr(op, "__name__", str(op)) if callable(op) else str(op)
        name = str(op) if str(op).startswith("aten") else name
        return Ref(self.add(replace(like, op=op, args=args, kwargs=kwargs or {}, name=name)))

    def of(self, argument: Argument) -> Node:
        """The call that an argument is the value of."""
        index: int = argument.index
        return self.nodes[index]


Rewrite = Callable[[Writer, Node], "Ref | None"]
REWRITES: dict[Any, Rewrite] = {}
"""By the call; None where it stays as it is."""

FIRST: dict[Any, Callable[[Writer, Node, Node], Ref]] = {}
"""By a call of several results, the first of which this writes."""


def _times(to: Writer, node: Node, slope: Any, z: Argument, *args: Any, **kwargs: Any) -> Ref:
    made = to.emit(slope, (z, *args), to.of(z), kwargs)
    return to.emit(aten.mul.Tensor, (node.args[0], made), node)


def _before(to: Writer, node: Node, value: Argument, op: Any) -> Argument:
    """What the activation took whose value this is."""
    source = to.of(value)
    if source.op is not op:
        raise unsupported(node, f"is not of a value of {op}")
    return source.args[0]


def _threshold(to: Writer, node: Node) -> Ref:
    _, value, at = node.args
    if to.of(value).op is aten.relu.default and at == 0:
        value = to.of(value).args[0]
    return _times(to, node, slopes.step, value, at)


def _sigmoid(to: Writer, node: Node) -> Ref:
    z = _before(to, node, node.args[1], aten.sigmoid.default)
    return _times(to, node, slopes.sigmoid_slope, z)


def _tanh(to: Writer, node: Node) -> Ref:
    return _times(to, node, slopes.tanh_slope, _before(to, node, node.args[1], aten.tanh.default))


def _leaky(to: Writer, node: Node) -> Ref:
    _, z, left, is_result = node.args
    if is_result:
        if left <= 0:
            raise unsupported(node, "cannot be told from its value: its slope is not positive")
        z = _before(to, node, z, aten.leaky_relu.default)
    return _times(to, node, slopes.two_slopes, z, float(left))


def _elu(to: Writer, node: Node) -> Ref:
    _, alpha, scale, input_scale, is_result, z = node.args
    if is_result:
        z = _before(to, node, z, aten.elu.default)
    return _times(to, node, slopes.elu_slope, z, float(alpha), float(scale), float(input_scale))


def _softplus(to: Writer, node: Node) -> Ref:
    _, z, beta, threshold = node.args
    return _times(to, node, slopes.softplus_slope, z, float(beta), float(threshold))


def _gelu(to: Writer, node: Node) -> Ref:
    form = node.kwargs.get("approximate", "none")
    return _times(to, node, slopes.gelu_slope, node.args[1], approximate=form)


def _silu(to: Writer, node: Node) -> Ref:
    return _times(to, node, slopes.silu_slope, node.args[1])


def _hardtanh(to: Writer, node: Node) -> Ref:
    _, z, low, high = node.args
    return _times(to, node, slopes.between, z, float(low), float(high))


def _silu_in_parts(to: Writer, node: Node) -> Ref | None:
    """`g s (x (1 - s) + 1)` with s the sigmoid of x: what autograd makes of SiLU."""
    if len(node.args) != 2 or not all(isinstance(a, Ref) for a in node.args):
        return None
    scaled, rest = (to.of(a) for a in node.args)
    if scaled.op is not aten.mul.Tensor or rest.op is not aten.add.Scalar:
        return None
    inner, gate = rest.args[0], scaled.args[1]
    if rest.args[1] != 1 or not isinstance(gate, Ref) or not isinstance(inner, Ref):
        return None
    product, s = to.of(inner), to.of(gate)
    if s.op is not aten.sigmoid.default or product.op is not aten.mul.Tensor:
        return None
    x, other = product.args
    if x != s.args[0] or not isinstance(other, Ref):
        return None
    one_less = to.of(other)
    if one_less.op is not aten.sub.Tensor or one_less.args[1] != gate:
        return None
    one = to.of(one_less.args[0])
    if one.op is not aten.full.default or one.args[1] != 1:
        return None
    return _times(to, replace(node, args=(scaled.args[0],)), slopes.silu_slope, x)


def _avg_pool(to: Writer, node: Node) -> Ref:
    g, x, *settings = node.args
    return to.emit(slopes.avg_pool_back, (g, to.of(x).sizes, *settings), node)


def _adaptive_avg_pool(to: Writer, node: Node) -> Ref:
    g, x = node.args
    return to.emit(slopes.adaptive_avg_pool_back, (g, to.of(x).sizes), node)


def _max_pool(to: Writer, node: Node) -> Ref:
    g, x, *settings, _ = node.args
    return to.emit(slopes.max_pool_back, (g, x, *settings), node)


def _softmax(to: Writer, node: Node) -> Ref:
    """`s (g - sum(g s))`."""
    g, s, dim = node.args[:3]
    total = _summed(to, to.emit(aten.mul.Tensor, (g, s), node), dim)
    return to.emit(aten.mul.Tensor, (s, to.emit(aten.sub.Tensor, (g, total), node)), node)


def _log_softmax(to: Writer, node: Node) -> Ref:
    """`g - softmax(z) sum(g)`."""
    g, value, dim = node.args[:3]
    z = _before(to, node, value, aten.log_softmax.int)
    share = to.emit(aten.softmax.int, (z, dim), node)
    total = _summed(to, g, dim)
    return to.emit(aten.sub.Tensor, (g, to.emit(aten.mul.Tensor, (share, total), node)), node)


def _summed(to: Writer, value: Ref, dim: int) -> Ref:
    like = to.of(value)
    dim %= len(like.shape)
    sizes: tuple[int | Size, ...] = (*like.sizes[:dim], 1, *like.sizes[dim + 1 :])
    shape = (*like.shape[:dim], 1, *like.shape[dim + 1 :])
    return to.emit(
        aten.sum.dim_IntList, (value, (dim,), True), replace(like, sizes=sizes, shape=shape)
    )


def _convolution(to: Writer, source: Node, node: Node) -> Ref:
    """The transposed convolution, and back."""
    g, x, weight, _, stride, padding, dilation, transposed, _, groups, _ = source.args
    extra = (0,) * len(stride)
    if not transposed:
        kernel, have, want = (to.of(a).shape[2:] for a in (weight, g, x))
        extra = tuple(
            want[i] - ((have[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (k - 1) + 1)
            for i, k in enumerate(kernel)
        )
    args = (g, weight, None, stride, padding, dilation, not transposed, extra, groups)
    return to.emit(aten.convolution.default, args, replace(node, module=source.module))


def _batch_norm(to: Writer, source: Node, node: Node) -> Ref:
    g, _, weight, _, var, _, _, training, eps, _ = source.args
    if training:
        raise unsupported(source, "is in training mode: call model.eval()")
    like = replace(node, module=source.module)
    return to.emit(slopes.batch_norm_back, (g, weight, var, eps), like)


REWRITES.update(
    {
        aten.threshold_backward.default: _threshold,
        aten.sigmoid_backward.default: _sigmoid,
        aten.tanh_backward.default: _tanh,
        aten.leaky_relu_backward.default: _leaky,
        aten.elu_backward.default: _elu,
        aten.softplus_backward.default: _softplus,
        aten.gelu_backward.default: _gelu,
        aten.silu_backward.default: _silu,
        aten.mul.Tensor: _silu_in_parts,
        aten.hardtanh_backward.default: _hardtanh,
        aten.avg_pool2d_backward.default: _avg_pool,
        aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool,
        aten.max_pool2d_with_indices_backward.default: _max_pool,
        aten._softmax_backward_data.default: _softmax,
        aten._log_softmax_backward_data.default: _log_softmax,
    }
)
FIRST.update(
    {
        aten.convolution_backward.default: _convolution,
        aten.native_batch_norm_backward.default: _batch_norm,
    }
)

"""A pruned network rebuilt smaller: neurons and channels that do nothing, or are constant, go.

A channel that no weight of the next layer reads is dead. A channel without a weight that comes in
(or whose batch norm has a zero scale) is constant; what it adds to the next layer goes into that
layer's bias. Zero padding cuts a constant channel off at the border, so there it stays, but one of
them can stand for all: next to kernels w and values v, a kernel `sum(w v) / v_1` reads the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certify.errors import UnsupportedError
from certify.sparse.layers import LAYERS, Layer

_Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ENTRYWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.ReLU6, nn.Hardsigmoid, nn.Hardswish, nn.Softsign),
)
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


def shrink(model: nn.Module) -> nn.Module:
    """Return a smaller network of the same function in eval mode, with the same modules and names.

    Channels go until no more can. A layer keeps at least one.

    Args:
        model: A chain of layers: `nn.Sequential`, nested or not. What it holds of other modules
            (residual blocks, say) is kept as it is. Linear layers are taken to map vectors, (B, C):
            on sequences, (B, T, C), batch norm between two of them would be of T, not of C.

    Raises:
        UnsupportedError: No two layers of it are known to follow one another.
    """
    model = deepcopy(model)
    links = list(_links(list(_chain(model))))
    if not links and sum(isinstance(part, LAYERS) for part in model.modules()) > 1:
        raise UnsupportedError(
            "cannot shrink this model: it is no chain of layers (nn.Sequential) whose channels "
            "are known to pass from one to the next"
        )
    with torch.no_grad():
        while any(_shorten(link) for link in links):
            pass
    return model


@dataclass(frozen=True, eq=False)
class _Link:
    """Two layers, and what lies between them; `spread` features of the second to a channel."""

    first: Layer
    between: tuple[nn.Module, ...]
    second: Layer
    spread: int


def _chain(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential) and _plain(module) and not _hooked(module):
        for part in module:  # not children(), which names a module once
            yield from _chain(part)
    else:
        yield module


def _plain(module: nn.Sequential) -> bool:
    return type(module).forward is nn.Sequential.forward


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _links(chain: list[nn.Module]) -> Iterator[_Link]:
    first: Layer | None = None
    between: list[nn.Module] = []
    for module in chain:
        uses = sum(module is part for other in chain for part in other.modules())
        once = uses == 1 or not list(module.parameters())
        alone = once and not _hooked(module)
        if type(module) in LAYERS and alone and getattr(module, "groups", 1) == 1:
            assert isinstance(module, LAYERS)
            if first is not None and (link := _link(first, between, module)) is not None:
                yield link
            first, between = module, []
        elif first is not None and alone and _by_channel(module):
            between.append(module)
        else:
            first = None


def _by_channel(module: nn.Module) -> bool:
    """Whether it works channel by channel, and takes a constant channel to a constant one."""
    kind = type(module)
    if kind in _NORMS:
        return module.running_mean is not None
    if kind in _AVERAGES:
        edged = module.padding not in (0, (0,), (0, 0), (0, 0, 0)) and module.count_include_pad
        return not (edged or getattr(module, "divisor_override", None))
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    if kind in _POOLS:
        return not getattr(module, "return_indices", False)
    return kind in _ENTRYWISE or kind in _IDLE


def _link(first: Layer, between: list[nn.Module], second: Layer) -> _Link | None:
    """The link; None where it is not certain which inputs of the second are which channels."""
    channels, inputs = len(first.weight), second.weight.shape[1]
    flat = any(isinstance(part, nn.Flatten) for part in between)
    images = not isinstance(first, nn.Linear)
    if images and isinstance(second, nn.Linear):
        spread = inputs // channels
        known = flat and inputs == channels * spread
    else:
        spread = 1
        known = images != isinstance(second, nn.Linear) and inputs == channels
        known = known and not (images and flat)
    kinds = [type(part) for part in between]
    vectors = kinds if not images else kinds[kinds.index(nn.Flatten) :] if flat else []
    if any(kind in _POOLS + _AVERAGES for kind in vectors):  # these would mix channels
        known = False
    return _Link(first, tuple(between), second, spread) if known else None


def _shorten(link: _Link) -> bool:
    """Take out what can go between two layers; whether anything did."""
    constant, value = _constants(link)
    second = link.second
    reads = second.weight.double().flatten(2) if second.weight.dim() > 2 else second.weight.double()
    reads = reads.reshape(len(reads), len(link.first.weight), -1).clone()  # (outputs, channels, k)
    used = (reads != 0).any(2).any(0)
    cut = used & constant & (value != 0).any(1) & _zero_padded(second)
    gone = ~used | (constant & ~cut)
    added = (reads * value)[:, gone & used].sum((1, 2))
    if int(cut.sum()) > 1:
        keeper = int(torch.where(cut, value[:, 0].abs(), -1.0).argmax())
        reads[:, keeper] = (reads * value)[:, cut].sum(1) / value[keeper]
        gone |= cut & (torch.arange(len(cut), device=cut.device) != keeper)
    changed = bool((gone & used).any())
    reads[:, gone] = 0.0
    if bool(gone.all()):
        gone[0] = False
    if not changed and not bool(gone.any()):
        return False
    _narrow(link, ~gone, reads)
    if bool((added != 0).any()):
        before = 0.0 if second.bias is None else second.bias.double()
        second.bias = nn.Parameter((before + added).to(second.weight.dtype), _learns(second))
    return True


def _constants(link: _Link) -> tuple[Tensor, Tensor]:
    """Which channels are constant, (channels,), and the values the second layer reads of them.

    Returns:
        The values are float64, (channels, spread), and 0 where a channel is not constant.
    """
    first = link.first
    constant = ~(first.weight != 0).flatten(1).any(1)
    value = first.weight.new_zeros(len(constant), dtype=torch.float64)
    if first.bias is not None:
        value = first.bias.double()
    for part in link.between:
        if isinstance(part, nn.Flatten):
            constant = constant.repeat_interleave(link.spread)
            value = value.repeat_interleave(link.spread)
        elif isinstance(part, _NORMS):
            if part.weight is not None:
                constant = constant | (part.weight == 0)
            value = _normed(part, value)
        elif isinstance(part, _ENTRYWISE):
            value = part(value.clone())  # it may work in place
    channels = len(first.weight)
    constant = constant.view(channels, -1).all(1)
    return constant, torch.where(constant[:, None], value.view(channels, -1), 0.0)


def _normed(norm: _Norm, value: Tensor) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = (None if p is None else p.double() for p in (norm.weight, norm.bias))
    mean, var = norm.running_mean.double(), norm.running_var.double()
    return F.batch_norm(value[None], mean, var, weight, bias, eps=norm.eps)[0]


def _zero_padded(layer: Layer) -> bool:
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    return layer.padding == "same" or any(layer.padding)


def _narrow(link: _Link, kept: Tensor, reads: Tensor) -> None:
    """Keep some channels between two layers, with new weights of the second."""
    first, second = link.first, link.second
    first.weight = nn.Parameter(first.weight[kept].clone(), _learns(first))
    if first.bias is not None:
        first.bias = nn.Parameter(first.bias[kept].clone(), _learns(first))
    shape = (len(second.weight), -1, *second.weight.shape[2:])
    weight = reads[:, kept].reshape(shape).to(second.weight.dtype)
    second.weight = nn.Parameter(weight, _learns(second))
    features = kept
    for part in link.between:
        if isinstance(part, nn.Flatten):
            features = kept.repeat_interleave(link.spread)
        elif isinstance(part, _NORMS):
            _keep(part, features)
    for layer in (first, second):
        sizes = ("out_features", "in_features")
        if not isinstance(layer, nn.Linear):
            sizes = ("out_channels", "in_channels")
        for name, size in zip(sizes, layer.weight.shape[:2], strict=True):
            setattr(layer, name, size)


def _keep(norm: _Norm, features: Tensor) -> None:
    for name in ("running_mean", "running_var"):
        norm.register_buffer(name, getattr(norm, name)[features].clone())
    for name in ("weight", "bias"):
        if (old := getattr(norm, name)) is not None:
            setattr(norm, name, nn.Parameter(old[features].clone(), old.requires_grad))
    norm.num_features = int(features.sum())


def _learns(layer: Layer) -> bool:
    return layer.weight.requires_grad

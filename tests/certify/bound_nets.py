"""Random little networks that between them use every operation with a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]


class Fn(nn.Module):
    """A function as a layer, with modules of its own if it needs any."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


class Mask(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.register_buffer("mask", torch.rand(shape) > 0.4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.mask, x, -x / 2)


class Parameter(nn.Module):
    """A function of x and of a parameter of x's shape."""

    def __init__(self, shape: Shape, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w)


def normed(kind: type[nn.Module]) -> Callable[[Shape], nn.Module]:
    """Batch norm as training leaves it."""

    def make(shape: Shape) -> nn.Module:
        module = kind(shape[0])
        with torch.no_grad():
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2)
            module.weight.normal_()
            module.bias.normal_()
        return module

    return make


def affine_norm(make: Callable[[Shape], nn.Module]) -> Callable[[Shape], nn.Module]:
    def made(shape: Shape) -> nn.Module:
        module = make(shape)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_()
        return module

    return made


def fn(function: Callable[[Tensor], Tensor]) -> Callable[[Shape], nn.Module]:
    return lambda _: Fn(function)


def layer(kind: Callable[..., nn.Module], *args: object, **kwargs: object) -> Callable:
    return lambda _: kind(*args, **kwargs)


def set_column(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = 0.5
    return y


def set_slice(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y.copy_(x)
    y[:, 1:] = x[:, :-1]
    return y


def attention(x: Tensor, module: nn.Module) -> Tensor:
    return module(x, x, x, need_weights=False)[0]


def residual(x: Tensor, module: nn.Module) -> Tensor:
    return x + module(x)


ANY: dict[str, Callable[[Shape], nn.Module]] = {
    name: layer(getattr(nn, name))
    for name in [
        "ReLU",
        "LeakyReLU",
        "PReLU",
        "ELU",
        "SELU",
        "CELU",
        "GELU",
        "SiLU",
        "Mish",
        "Sigmoid",
        "LogSigmoid",
        "Tanh",
        "Softplus",
        "Hardtanh",
        "ReLU6",
        "Hardswish",
        "Hardsigmoid",
        "Softsign",
        "Tanhshrink",
        "Softshrink",
        "Hardshrink",
    ]
}
ANY |= {
    "GELU tanh": layer(nn.GELU, "tanh"),
    "LeakyReLU falling": layer(nn.LeakyReLU, -0.25),
    "Softplus early": layer(nn.Softplus, 2.0, 1.0),
    "in place": lambda _: nn.Sequential(Fn(lambda x: x * 2), nn.ReLU(True)),
    "Threshold": layer(nn.Threshold, 0.25, -0.5),
    "abs": fn(torch.abs),
    "square": fn(torch.square),
    "cube": fn(lambda x: x**3),
    "power -2": fn(lambda x: (x.abs() + 1) ** -2),
    "power 1.5": fn(lambda x: (x.abs() + 0.5) ** 1.5),
    "exp": fn(torch.exp),
    "expm1": fn(torch.expm1),
    "atan": fn(torch.atan),
    "clamp above": fn(lambda x: torch.clamp_max(x, 0.25)),
    "erf": fn(torch.erf),
    "log": fn(lambda x: (x.exp() + 0.5).log()),
    "log1p": fn(lambda x: x.square().log1p()),
    "sqrt": fn(lambda x: (x.abs() + 0.25).sqrt()),
    "rsqrt": fn(lambda x: (x.abs() + 0.25).rsqrt()),
    "reciprocal": fn(lambda x: (x.abs() + 0.5).reciprocal()),
    "clamp": fn(lambda x: x.clamp(-0.25, 0.5)),
    "clamp below": fn(lambda x: x.clamp(min=0.125)),
    "maximum": fn(lambda x: torch.maximum(x, x.flip(-1))),
    "minimum": fn(lambda x: torch.minimum(x, 1 - x)),
    "product": fn(lambda x: x * x.flip(-1)),
    "own product": fn(lambda x: x * x),
    "quotient": fn(lambda x: x / (1 + x.flip(-1).abs())),
    "scale": lambda shape: Parameter(shape, lambda x, w: x * w),
    "divide": lambda shape: Parameter(shape, lambda x, w: x / (w.abs() + 0.5)),
    "shift": lambda shape: Parameter(shape, lambda x, w: x - w),
    "log2": fn(lambda x: (x.abs() + 0.5).log2()),
    "log10": fn(lambda x: (x.abs() + 0.5).log10()),
    "cosine": fn(lambda x: x * F.cosine_similarity(x, x + 1, dim=-1).unsqueeze(-1)),
    "clamp by a tensor": lambda s: Parameter(s, lambda x, w: x.clamp(min=w).clamp(max=w + 1)),
    "gather": lambda s: Parameter(
        s, lambda x, w: x.gather(1, torch.zeros(s, dtype=torch.long).expand(len(x), *s))
    ),
    "masked_fill by a tensor": lambda s: Parameter(
        s, lambda x, w: x.masked_fill(w > 0, w.flatten()[0])
    ),
    "variance": fn(lambda x: x.var(-1, keepdim=True) - x),
    "copy": fn(set_slice),
    "squeeze": fn(lambda x: x.unsqueeze(1).unsqueeze(1).squeeze((1, 2))),
    "wider type": fn(torch.Tensor.double),
    "reversed": fn(lambda x: 0.75 - x),
    "twice": fn(lambda x: x + x),
    "center": fn(lambda x: x - x.mean(-1, keepdim=True)),
    "normalize": fn(lambda x: F.normalize(x + 1, dim=-1)),
    "norm 1": fn(lambda x: x / (1 + x.norm(1, dim=-1, keepdim=True))),
    "std": fn(lambda x: x * x.std(-1, keepdim=True)),
    "softmax": layer(nn.Softmax, -1),
    "log_softmax": layer(nn.LogSoftmax, -1),
    "logsumexp": fn(lambda x: x - x.logsumexp(-1, keepdim=True)),
    "cumsum": fn(lambda x: x.cumsum(-1)),
    "sum": fn(lambda x: x * 0.5 + x.sum(-1, keepdim=True)),
    "amax": fn(lambda x: x - x.amax(-1, keepdim=True)),
    "amin": fn(lambda x: x + x.min(-1, keepdim=True).values),
    "concat": fn(lambda x: torch.cat([x, x.relu(), x.new_ones(x.shape)], 1)),
    "stack": fn(lambda x: torch.stack([x, -x], 2).flatten(1, 2)),
    "slice": fn(lambda x: x[..., 1::2]),
    "select": fn(lambda x: torch.cat([x, x.select(-1, 1).unsqueeze(-1)], -1)),
    "index": fn(lambda x: x[:, [0, 2, 2]]),
    "index_select": fn(lambda x: x.index_select(1, torch.tensor([1, 0]))),
    "repeat": fn(lambda x: x.repeat(1, 2, *(1,) * (x.ndim - 2))),
    "expand": fn(lambda x: x.unsqueeze(1).expand(-1, 2, *x.shape[1:]).flatten(1, 2)),
    "chunk": fn(lambda x: torch.cat(x.chunk(2, -1)[::-1], -1)),
    "roll": fn(lambda x: x.roll(1, -1)),
    "set": fn(set_column),
    "where": Mask,
    "masked_fill": lambda s: Parameter(s, lambda x, w: x.masked_fill(w > 0, 0.25)),
    "pad": fn(lambda x: F.pad(x, (1, 2), value=0.5)),
    "dropout": layer(nn.Dropout),
    "glu": fn(lambda x: F.glu(torch.cat([x, x + 0.5], 1), 1)),
    "residual": lambda _: Fn(residual, nn.Tanh()),
    "wider": fn(lambda x: x.unsqueeze(1) * x.new_tensor([1.0, -2.0]).view(2, *(1,) * (x.ndim - 1))),
}
VECTOR = {
    "Linear": lambda s: nn.Linear(s[0], 4),
    "BatchNorm1d": normed(nn.BatchNorm1d),
    "LayerNorm": affine_norm(lambda s: nn.LayerNorm(s)),
    # eps=None would be that of the type: another function in float64
    "RMSNorm": affine_norm(lambda s: nn.RMSNorm(s, eps=1e-6)),
    "no bias": lambda s: nn.Linear(s[0], 3, bias=False),
    "baddbmm": fn(
        lambda x: torch.baddbmm(x[:, :, None], x[:, :, None], x[:, :1, None], beta=0.5).flatten(1)
    ),
    "outer": fn(lambda x: (x.unsqueeze(2) @ x.unsqueeze(1)).flatten(1)),
    "einsum": lambda s: Parameter((s[0], 3), lambda x, w: torch.einsum("bi,ij->bj", x, w)),
}
SEQUENCE = {
    "Conv1d": lambda s: nn.Conv1d(s[0], 4, 3, padding=1),
    "ConvTranspose1d": lambda s: nn.ConvTranspose1d(s[0], 3, 2, stride=2),
    "MaxPool1d": layer(nn.MaxPool1d, 2),
    "AvgPool1d": layer(nn.AvgPool1d, 2),
    "AdaptiveAvgPool1d": layer(nn.AdaptiveAvgPool1d, 3),
    "AdaptiveMaxPool1d": layer(nn.AdaptiveMaxPool1d, 2),
    "InstanceNorm1d": affine_norm(lambda s: nn.InstanceNorm1d(s[0], affine=True)),
    "GroupNorm": affine_norm(lambda s: nn.GroupNorm(1, s[0])),
    "Linear on sequences": lambda s: nn.Linear(s[1], 4),
    "MultiheadAttention": lambda s: Fn(attention, nn.MultiheadAttention(s[1], 1, batch_first=True)),
    "TransformerEncoderLayer": lambda s: nn.TransformerEncoderLayer(
        s[1], 1, 8, batch_first=True, norm_first=True
    ),
    "attention": fn(lambda x: F.scaled_dot_product_attention(x, x, x)),
    "Upsample": layer(nn.Upsample, scale_factor=2),
    "Upsample linear": layer(nn.Upsample, scale_factor=2, mode="linear"),
    "ReflectionPad1d": layer(nn.ReflectionPad1d, 1),
    "ReplicationPad1d": layer(nn.ReplicationPad1d, 1),
    "tril": fn(torch.tril),
    "triu": fn(torch.triu),
}
IMAGE = {
    "Conv2d": lambda s: nn.Conv2d(s[0], 4, 3, stride=2, padding=1),
    "Conv2d dilated": lambda s: nn.Conv2d(s[0], 2 * s[0], 2, dilation=2, groups=s[0]),
    "Conv2d reflect": lambda s: nn.Conv2d(s[0], 2, 3, padding=1, padding_mode="reflect"),
    "Conv2d circular": lambda s: nn.Conv2d(s[0], 2, 3, padding=1, padding_mode="circular"),
    "ConvTranspose2d": lambda s: nn.ConvTranspose2d(s[0], 2, 3, 2, 1, 1),
    "BatchNorm2d": normed(nn.BatchNorm2d),
    "InstanceNorm2d": affine_norm(lambda s: nn.InstanceNorm2d(s[0], affine=True)),
    "LayerNorm 2d": affine_norm(lambda s: nn.LayerNorm(s[1:])),
    "MaxPool2d": layer(nn.MaxPool2d, 3, 2, 1),
    "AvgPool2d": layer(nn.AvgPool2d, 2),
    "AdaptiveAvgPool2d": layer(nn.AdaptiveAvgPool2d, 2),
    "AdaptiveAvgPool2d 1": layer(nn.AdaptiveAvgPool2d, 1),
    "AdaptiveMaxPool2d": layer(nn.AdaptiveMaxPool2d, 2),
    "Upsample 2d": layer(nn.Upsample, scale_factor=2),
    "Upsample bilinear": layer(nn.Upsample, scale_factor=2, mode="bilinear"),
    "ReflectionPad2d": layer(nn.ReflectionPad2d, 1),
    "ReplicationPad2d": layer(nn.ReplicationPad2d, 1),
    "Upsample exact": layer(nn.Upsample, scale_factor=2, mode="nearest-exact"),
    "PixelShuffle": lambda _: nn.Sequential(Fn(lambda x: x.repeat(1, 2, 1, 1)), nn.PixelShuffle(2)),
    "ChannelShuffle": layer(nn.ChannelShuffle, 2),
    "PixelUnshuffle": layer(nn.PixelUnshuffle, 2),
    "Unfold": layer(nn.Unfold, 2),
    "mean of an image": fn(lambda x: x.mean((2, 3))),
    "residual block": lambda s: Fn(residual, nn.Conv2d(s[0], s[0], 3, padding=1)),
}
VOLUME = {
    "Conv3d": lambda s: nn.Conv3d(s[0], 2, 2),
    "MaxPool3d": layer(nn.MaxPool3d, 2),
    "AvgPool3d": layer(nn.AvgPool3d, 2),
    "AdaptiveAvgPool3d": layer(nn.AdaptiveAvgPool3d, 2),
    "AdaptiveMaxPool3d": layer(nn.AdaptiveMaxPool3d, 2),
    "Upsample 3d": layer(nn.Upsample, scale_factor=2),
    "ReflectionPad3d": layer(nn.ReflectionPad3d, 1),
    "ReplicationPad3d": layer(nn.ReplicationPad3d, 1),
}
BY_RANK: dict[int, dict[str, Callable[[Shape], nn.Module]]] = {
    1: ANY | VECTOR,
    2: ANY | SEQUENCE,
    3: ANY | IMAGE,
    4: VOLUME,
}
STARTS: dict[int, Shape] = {1: (6,), 2: (4, 4), 3: (2, 6, 6), 4: (2, 4, 4, 4)}
ALONE = [(name, 1) for name in ANY | VECTOR]
ALONE += [(n, rank) for rank, ops in ((2, SEQUENCE), (3, IMAGE), (4, VOLUME)) for n in ops]


@dataclass(frozen=True)
class Case:
    """A model in eval mode, with centres of boxes and how far they reach."""

    name: str
    model: nn.Module
    x: Tensor
    eps: float


def alone(name: str, rank: int, eps: float = 0.1) -> Case:
    """One operation and nothing else."""
    torch.manual_seed(sum(map(ord, name)))
    shape = STARTS[rank]
    model = BY_RANK[rank][name](shape).eval()
    return Case(name, model, torch.randn(3, *shape), eps)


def net(seed: int, rank: int, names: Sequence[str], eps: float, samples: int = 2) -> Case:
    """Operations in a row, with linear layers between; those that do not fit are left out."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    x = torch.randn(samples, *STARTS[rank])
    value = x
    for name in names:
        make = BY_RANK.get(value.ndim - 1, {}).get(name)
        if make is None or value[0].numel() > 200:
            continue
        try:
            module = nn.Sequential(make(tuple(value.shape[1:])), scaled(0.5)).eval()
            with torch.no_grad():
                after = module(value.clone())
        except (RuntimeError, ValueError, AssertionError, IndexError):
            continue
        layers.append(module)
        value = after
    features = math.prod(value.shape[1:])
    layers += [nn.Flatten(), nn.Linear(features, 3)]
    return Case(" > ".join(names), nn.Sequential(*layers).eval(), x, eps)


def scaled(factor: float) -> nn.Module:
    return Fn(lambda x: x * factor)


def nets(depth: int = 4) -> st.SearchStrategy[Case]:
    """Random networks."""

    everything = BY_RANK[1].keys() | BY_RANK[2].keys() | BY_RANK[3].keys()

    def of(rank: int) -> st.SearchStrategy[Case]:
        some = st.sampled_from(sorted(everything - {"wider type"}))
        first = st.sampled_from(sorted(BY_RANK[rank].keys() - {"wider type"}))
        rows = st.tuples(first, st.lists(some, min_size=1, max_size=depth))
        names = rows.map(lambda pair: [pair[0], *pair[1]])
        return st.builds(
            net, st.integers(0, 10**6), st.just(rank), names, st.sampled_from((0.01, 0.1, 0.4))
        )

    return st.sampled_from((1, 2, 2, 3, 3, 4)).flatmap(of)

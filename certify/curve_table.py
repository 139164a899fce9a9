"""The smooth functions of one variable, and the bent ones, as curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from certify.curves import Curve, enclose
from certify.graph import Node
from certify.interval import Interval
from certify.linear import Lines
from certify.lines import LINES, Relaxation

aten = torch.ops.aten

CurveMaker = Callable[..., Curve]
"""From the call's arguments after the first."""

CURVES: dict[Any, CurveMaker] = {}


def curve_of(node: Node) -> Curve:
    """Return the curve of a call that has one."""
    kwargs = tuple(sorted(node.kwargs.items()))
    return _made(node.op, node.args[1:], kwargs)


@cache
def _made(op: Any, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> Curve:
    return CURVES[op](*args, **dict(kwargs))


def _lines(node: Node, x: Interval) -> Lines:
    return enclose(curve_of(node), x)


def _wide(node: Node, x: Interval) -> Tensor:
    return x.lower < x.upper


def curve(*ops: Any) -> Callable[[CurveMaker], CurveMaker]:
    """Register a maker of curves for operators, and their lines."""

    def register(maker: CurveMaker) -> CurveMaker:
        CURVES.update(dict.fromkeys(ops, maker))
        LINES.update(dict.fromkeys(ops, Relaxation(_lines, _wide)))
        return maker

    return register


@curve(aten.sigmoid.default)
def sigmoid() -> Curve:
    """Convex, then concave."""
    return Curve(torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x), (0.0,), (1, -1))


@curve(aten.tanh.default)
def tanh() -> Curve:
    """Convex, then concave."""
    return Curve(torch.tanh, lambda x: 1 / torch.cosh(x) ** 2, (0.0,), (1, -1))


@curve(aten.atan.default)
def atan() -> Curve:
    """Convex, then concave."""
    return Curve(torch.atan, lambda x: 1 / (1 + x * x), (0.0,), (1, -1))


@curve(aten.erf.default)
def erf() -> Curve:
    """Convex, then concave."""
    return Curve(torch.erf, lambda x: torch.exp(-x * x) * (2 / math.sqrt(math.pi)), (0.0,), (1, -1))


def _gaussian(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _normal(x: Tensor) -> Tensor:
    return torch.erfc(-x / math.sqrt(2)) / 2


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    k, c = math.sqrt(2 / math.pi), 0.044715
    inner = k * (x + c * x**3)
    s = torch.sigmoid(2 * inner)
    return s + 2 * x * s * torch.sigmoid(-2 * inner) * k * (1 + 3 * c * x * x)


@curve(aten.gelu.default)
def gelu(approximate: str = "none") -> Curve:
    """Concave, convex between the knots, concave; one minimum."""
    if approximate == "tanh":
        knot, turn = 1.4185040087908283555, -0.75246142207101625849
        k = math.sqrt(8 / math.pi)
        return Curve(
            lambda x: x * torch.sigmoid(k * (x + 0.044715 * x**3)),
            _gelu_tanh_slope,
            (-knot, knot),
            (-1, 1, -1),
            (turn,),
            relative_to_x=True,
        )
    return Curve(
        lambda x: x * _normal(x),
        lambda x: _normal(x) + x * _gaussian(x),
        (-math.sqrt(2), math.sqrt(2)),
        (-1, 1, -1),
        (-0.75179152469356450,),
        relative_to_x=True,
    )


def _silu_slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s + x * s * torch.sigmoid(-x)


@curve(aten.silu.default)
def silu() -> Curve:
    """Concave, convex between the knots, concave; one minimum."""
    knot = 2.3993572805154676678
    return Curve(
        lambda x: x * torch.sigmoid(x),
        _silu_slope,
        (-knot, knot),
        (-1, 1, -1),
        (-1.2784645427610737951,),
        relative_to_x=True,
    )


def _mish_slope(x: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(x))
    return t + x * (1 - t * t) * torch.sigmoid(x)


@curve(aten.mish.default)
def mish() -> Curve:
    """Concave, convex between the knots, concave; one minimum."""
    return Curve(
        lambda x: x * torch.tanh(F.softplus(x)),
        _mish_slope,
        (-2.25637639636079312, 1.4905711794854284593),
        (-1, 1, -1),
        (-1.1924312145154952121,),
        relative_to_x=True,
    )


def _log1pexp(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


@curve(aten.softplus.default)
def softplus(beta: float = 1.0, threshold: float = 20.0) -> Curve:
    """Convex, up to torch's jump at the threshold, which is an error like rounding's."""
    return Curve(
        lambda x: _log1pexp(x * beta) / beta,
        lambda x: torch.sigmoid(x * beta),
        (),
        (1,),
        relative_to_x=True,
        error=math.exp(-threshold) / beta,
    )


@curve(aten.log_sigmoid.default)
def log_sigmoid() -> Curve:
    """Concave."""
    return Curve(lambda x: -_log1pexp(-x), lambda x: torch.sigmoid(-x), (), (-1,))


@curve(aten.elu.default)
def elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Curve:
    """Bent on the left, straight on the right, with a kink unless the slopes are the same."""
    left, rate = alpha * scale, input_scale
    return Curve(
        lambda x: torch.where(x > 0, x * scale, left * torch.expm1(x.clamp(max=0) * rate)),
        lambda x: torch.where(x > 0, scale, left * rate * torch.exp(x.clamp(max=0) * rate)),
        (0.0,),
        (1 if left > 0 else -1, 0),
    )


@curve(aten.celu.default)
def celu(alpha: float = 1.0) -> Curve:
    """ELU with a slope of 1 at 0."""
    return elu(alpha, 1.0, 1 / alpha)


@curve(aten.exp.default)
def exp() -> Curve:
    """Convex."""
    return Curve(torch.exp, torch.exp, (), (1,))


@curve(aten.expm1.default)
def expm1() -> Curve:
    """Convex."""
    return Curve(torch.expm1, torch.exp, (), (1,))


@curve(aten.log.default)
def log() -> Curve:
    """Concave."""
    return Curve(torch.log, torch.reciprocal, (), (-1,), start=0.0)


@curve(aten.log1p.default)
def log1p() -> Curve:
    """Concave."""
    return Curve(torch.log1p, lambda x: 1 / (1 + x), (), (-1,), start=-1.0)


@curve(aten.pow.Tensor_Scalar)
def power(exponent: float) -> Curve:
    """Of any real exponent on positive numbers, of whole positive ones everywhere."""
    slope = lambda x: exponent * x ** (exponent - 1)  # noqa: E731
    value = lambda x: x**exponent  # noqa: E731
    if exponent in (0, 1):
        return Curve(value, lambda x: x * 0 + exponent, (), (0,))
    if exponent > 0 and exponent % 2 == 0:
        return Curve(value, slope, (), (1,), (0.0,))
    if exponent > 0 and exponent % 2 == 1:
        return Curve(value, slope, (0.0,), (-1, 1))
    return Curve(value, slope, (), (-1 if 0 < exponent < 1 else 1,), start=0.0)


@curve(aten.square.default)
def square() -> Curve:
    """Convex."""
    return power(2)


@curve(aten.sqrt.default)
def sqrt() -> Curve:
    """Concave."""
    return Curve(torch.sqrt, lambda x: 0.5 / torch.sqrt(x), (), (-1,), start=0.0)


@curve(aten.rsqrt.default)
def rsqrt() -> Curve:
    """Convex."""
    return power(-0.5)


@curve(aten.reciprocal.default)
def reciprocal() -> Curve:
    """Of positive numbers, convex."""
    return power(-1)


@curve(aten.hardtanh.default)
def hardtanh(low: float = -1.0, high: float = 1.0) -> Curve:
    """Three straight pieces."""
    return Curve(
        lambda x: x.clamp(low, high),
        lambda x: ((x > low) & (x < high)).to(x.dtype),
        (low, high),
        (0, 0, 0),
    )


@curve(aten.clamp.default)
def clamp(min: float | None = None, max: float | None = None) -> Curve:
    """Up to three straight pieces; where the ends are swapped, the upper one holds."""
    low = -math.inf if min is None else min
    high = math.inf if max is None else max
    knots = tuple(sorted(k for k in (low, high) if math.isfinite(k)))
    return Curve(
        lambda x: x.clamp(low, high),
        lambda x: ((x > low) & (x < high)).to(x.dtype),
        knots,
        (0,) * (len(knots) + 1),
    )


@curve(aten.clamp_min.default)
def clamp_min(low: float) -> Curve:
    """Two straight pieces."""
    return clamp(low, None)


@curve(aten.clamp_max.default)
def clamp_max(high: float) -> Curve:
    """Two straight pieces."""
    return clamp(None, high)


@curve(aten.hardsigmoid.default)
def hardsigmoid() -> Curve:
    """Three straight pieces."""
    return Curve(
        lambda x: (x / 6 + 0.5).clamp(0, 1),
        lambda x: (x.abs() < 3).to(x.dtype) / 6,
        (-3.0, 3.0),
        (0, 0, 0),
        relative_to_x=True,
    )


@curve(aten.hardswish.default)
def hardswish() -> Curve:
    """Straight, convex between the knots, straight; one minimum."""
    return Curve(
        lambda x: x * (x / 6 + 0.5).clamp(0, 1),
        lambda x: torch.where(x.abs() <= 3, x / 3 + 0.5, (x > 0).to(x.dtype)),
        (-3.0, 3.0),
        (0, 1, 0),
        (-1.5,),
        relative_to_x=True,
    )

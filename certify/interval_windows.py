"""Interval rules of the largest and the smallest: of windows, and along dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from certify.interval import Interval, as_interval
from certify.propagate import Context, Value, rule

aten = torch.ops.aten


@rule(
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    functional.adaptive_max_pool2d,
    functional.adaptive_max_pool3d,
    aten.amax.default,
    aten.amin.default,
)
def largest(context: Context, x: Value, *args: Any, **kwargs: Any) -> Interval:
    """Rises in every entry, and does not round."""
    op: Any = context.node.op
    return as_interval(x).each(lambda end: op(end, *args, **kwargs))

"""Calls that are better not decomposed as torch decomposes them: rewritten while tracing.

`F.instance_norm` folds the batch into the channels and calls batch norm in training mode;
`F.multi_head_attention_forward` works with the batch second; a circular pad writes into an empty
tensor. Each is replaced by calls that give the same values and keep a sample's numbers in its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Plain(TorchFunctionMode):
    """While it holds, the functions of `_PLAIN` go their own way."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the replacement, or the function itself where there is none."""
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    if not use_input_stats:
        return functional.batch_norm(
            x, running_mean, running_var, weight, bias, False, momentum, eps
        )
    return functional.group_norm(x, x.shape[1], weight, bias, eps)


_attention_forward = functional.multi_head_attention_forward


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    *rest: Any,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Vaswani et al. (NeurIPS 2017), section 3.2.2; tensors come as (length, batch, width)."""
    unusual = (in_proj_weight is None, bias_k is not None, add_zero_attn, attn_mask is not None)
    if any(unusual) or query.ndim != 3 or key_padding_mask is not None or (training and dropout_p):
        return _attention_forward(
            query,
            key,
            value,
            embed_dim_to_check,
            num_heads,
            in_proj_weight,
            in_proj_bias,
            bias_k,
            bias_v,
            add_zero_attn,
            dropout_p,
            out_proj_weight,
            out_proj_bias,
            training,
            key_padding_mask,
            need_weights,
            attn_mask,
            use_separate_proj_weight,
            *rest,
            **others,
        )
    assert in_proj_weight is not None
    weights = in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    heads = [
        functional.linear(x.transpose(0, 1), w, b)
        .reshape(x.shape[1], x.shape[0], num_heads, embed_dim_to_check // num_heads)
        .transpose(1, 2)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    ]
    scale = (embed_dim_to_check // num_heads) ** -0.5
    scores = torch.softmax(heads[0] * scale @ heads[1].transpose(2, 3), 3)
    mixed = (scores @ heads[2]).transpose(1, 2).flatten(2)
    output = functional.linear(mixed, out_proj_weight, out_proj_bias).transpose(0, 1)
    return output, scores.mean(1) if need_weights else None


def _circular(x: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Tensor:
    if mode != "circular":
        return _pad(x, pad, mode, value)
    for i in range(len(pad) // 2):
        dim, (before, after) = x.ndim - 1 - i, pad[2 * i : 2 * i + 2]
        size = x.shape[dim]
        x = torch.cat([x.narrow(dim, size - before, before), x, x.narrow(dim, 0, after)], dim)
    return x


_pad = functional.pad

_PLAIN: dict[Any, Callable[..., Any]] = {
    functional.instance_norm: _instance_norm,
    functional.multi_head_attention_forward: _attention,
    functional.pad: _circular,
}

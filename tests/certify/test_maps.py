"""Forms of linear maps that are chosen for speed give what the plain calls give."""

from __future__ import annotations

import pytest
import torch

from certify.affine_ops import share
from certify.maps import Convolution

CASES = [(4, 2, 1, 0, 1), (4, 2, 1, 1, 8), (3, 2, 1, 1, 2), (5, 3, 2, 2, 6), (2, 2, 0, 1, 3)]


@pytest.mark.parametrize(("kernel", "stride", "padding", "extra", "channels"), CASES)
def test_transposed_convolutions(
    kernel: int, stride: int, padding: int, extra: int, channels: int
) -> None:
    """Forwards, and as the way back of the plain ones."""
    torch.manual_seed(0)
    weight = torch.randn(5, channels, kernel, kernel, dtype=torch.float64)
    bias = torch.randn(channels, dtype=torch.float64)
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    shared = ([stride] * 2, [padding] * 2, [1, 1])
    settings = (*shared, True, [extra] * 2, 1)
    linear = Convolution(weight, bias, bias.abs(), settings, x.shape[1:])
    found = torch.ops.aten.convolution(x, weight, bias, *settings)
    assert torch.allclose(linear.apply(x), found)
    sized = torch.ops.aten.convolution(x, weight.abs(), bias.abs() * 0.3, *settings)
    assert torch.allclose(linear.apply_abs(x, 0.3), sized)
    plain = Convolution(weight, None, None, (*shared, False, [0, 0], 1), found.shape[1:])
    at = torch.randn_like(found).requires_grad_()
    out = plain.apply(at)
    rows = torch.randn_like(out)
    (gradient,) = torch.autograd.grad((out * rows).sum(), at)
    assert torch.allclose(plain.adjoint(rows), gradient)


def test_shares_of_weights() -> None:
    """A share is one that no weight exceeds; where weights move by amounts, there is none."""
    weight = torch.randn(30, 20)
    weight[0] = 0
    found = share(weight.abs() * 0.01, weight)
    assert found is not None
    assert bool((weight.abs().double() * found >= (weight.abs() * 0.01).double()).all())
    assert found <= 0.01 * (1 + 1e-5)
    assert share(torch.full_like(weight, 0.01), weight) is None
    assert share((weight != 0) * 0.01, weight) is None
    assert share(weight.abs() * 2, weight) is None
    assert share(torch.zeros_like(weight), torch.zeros_like(weight)) == 0.0

"""The faster input gradient of a first convolution is autograd's, and touches nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks.convolution import FastInputGradients


@settings(deadline=None)
@given(
    channels=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
)
def test_gradient_equals_autograds(channels, kernel, stride, padding, bias):
    generator = torch.Generator().manual_seed(channels)
    layer = nn.Conv2d(channels, 3, kernel, stride, padding, bias=bias).double()
    x = torch.randn(4, channels, 9, 8, generator=generator, dtype=torch.float64).requires_grad_()
    plain = layer(x)
    pull = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(plain, x, pull)
    with FastInputGradients():
        fast = layer(x)
    (found,) = torch.autograd.grad(fast, x, pull)
    assert torch.equal(fast, plain)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_it_is_used_and_differs_in_the_last_bits_only():
    layer = nn.Conv2d(1, 16, 4, 2, 1).requires_grad_(False)
    x = torch.rand(8, 1, 28, 28, requires_grad=True)
    with FastInputGradients():
        fast = layer(x)
    assert "_Conv2d" in type(fast.grad_fn).__name__
    assert "_Conv2d" not in type(layer(x).grad_fn).__name__


@pytest.mark.parametrize("options", [{"padding": "same"}, {"dilation": 2, "stride": 2}])
def test_other_convolutions_stay_as_they_are(options):
    layer = nn.Conv2d(2, 4, 3, **options)
    x = torch.rand(2, 2, 9, 9, requires_grad=True)
    with FastInputGradients():
        out = layer(x)
    assert "_Conv2d" not in type(out.grad_fn).__name__
    assert torch.equal(out, layer(x))


def test_groups_and_unbatched_images_stay_as_they_are():
    grouped = nn.Conv2d(2, 4, 3, stride=2, groups=2)
    x = torch.rand(2, 2, 9, 9, requires_grad=True)
    with FastInputGradients():
        assert torch.equal(grouped(x), grouped(x.detach()))
        assert nn.Conv2d(2, 4, 3, stride=2)(x[0]).shape == (4, 4, 4)

"""float32 products are float32 products, however the caller asked for shorter ones."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from attacks.classifier import exact_passes
from attacks.precision import _switches

BACKENDS = torch.backends
NEWER = hasattr(BACKENDS.cuda.matmul, "fp32_precision")


def setting(owner: object, name: str, value: object):
    return lambda: setattr(owner, name, value)


ASKED = {
    "matmul, the older way": setting(BACKENDS.cuda.matmul, "allow_tf32", True),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "convolutions": setting(BACKENDS.cudnn, "allow_tf32", True),
}
if NEWER:
    ASKED |= {
        "matmul, the newer way": setting(BACKENDS.cuda.matmul, "fp32_precision", "tf32"),
        "convolutions, the newer way": setting(BACKENDS.cudnn.conv, "fp32_precision", "tf32"),
        "the processor's": setting(BACKENDS.mkldnn.matmul, "fp32_precision", "bf16"),
    }


@pytest.fixture
def settings():
    """What torch says of its precision; it is as before when the test has ended."""

    def state() -> list[object]:
        found: list[object] = [switch.fp32_precision for switch in _switches()]
        for read in (
            torch.get_float32_matmul_precision,
            lambda: BACKENDS.cuda.matmul.allow_tf32,
            lambda: BACKENDS.cudnn.allow_tf32,
        ):
            try:
                found.append(read())
            except RuntimeError:
                found.append("set in both ways")
        return found

    before = state()
    yield state
    torch.set_float32_matmul_precision("highest")
    for switch, value in zip(_switches(), before, strict=False):
        switch.fp32_precision = value
    BACKENDS.cudnn.allow_tf32 = before[-1]
    assert state() == before


@pytest.mark.parametrize("asked", ASKED)
def test_it_is_full_inside_and_as_asked_after(settings, asked):
    ASKED[asked]()
    before = settings()
    with exact_passes():
        assert {switch.fp32_precision for switch in _switches()} <= {"ieee"}
        if not NEWER:
            assert settings() == ["highest", False, False]
    assert settings() == before


@pytest.mark.gpu
@pytest.mark.parametrize("asked", ASKED)
def test_cuda_multiplies_in_float32(settings, asked):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    fine = 1 + 2.0**-20  # TF32 has 10 bits
    x = torch.full((128, 128), fine, device="cuda")
    images, weight = x.view(1, 1, 128, 128), torch.zeros(64, 1, 3, 3, device="cuda")
    weight[:, :, 1, 1] = 1
    ASKED[asked]()
    with torch.autocast("cuda"), exact_passes():
        product = x @ torch.eye(128, device="cuda")
        convolved = functional.conv2d(images, weight, padding=1)
    assert product.dtype == torch.float32
    assert bool((product == fine).all())
    assert bool((convolved == fine).all())

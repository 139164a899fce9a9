"""A model by others, saved on a CUDA device in the legacy format, on real images."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_c import zoo

MODEL = Path(__file__).parents[4] / "shared/data/models/convex_adversarial/fashion_mnist.pth"
IMAGES = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not MODEL.exists(), reason="the published model is not here")
def test_the_published_model_has_its_published_accuracy() -> None:
    model = zoo.load(str(MODEL), arch="cnn-small", input_shape=(1, 28, 28), n_classes=10)
    assert model.notices == ()
    if not IMAGES.exists():
        pytest.skip("dataset-fashion-mnist is not installed")
    raw = gzip.decompress((IMAGES / "t10k-images-idx3-ubyte.gz").read_bytes())
    x = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28) / 255)
    raw = gzip.decompress((IMAGES / "t10k-labels-idx1-ubyte.gz").read_bytes())
    y = torch.from_numpy(np.frombuffer(raw, np.uint8, offset=8).astype(np.int64))
    with torch.no_grad():
        right = sum(
            int((model.module(a).argmax(1) == b).sum())
            for a, b in zip(x.float().split(500), y.split(500), strict=True)
        )
    assert abs(right - 7827) <= 1

"""Architectures: shapes, layouts, bounds on their arguments."""

import pytest
import torch
from torch import nn

from robustbench_c import zoo
from robustbench_c.errors import ModelError
from robustbench_c.zoo.nets.registry import resolve

IMAGES = [(1, 28, 28), (3, 32, 32)]


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("name", zoo.architectures())
def test_every_architecture_gives_logits(name: str, shape: tuple[int, ...]) -> None:
    network = zoo.build(name, shape, 10).eval()
    with torch.no_grad():
        assert network(torch.rand(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("size", [8, 9, 11])
@pytest.mark.parametrize("name", ["cnn-small", "cnn7", "resnet"])
def test_odd_image_sizes(name: str, size: int) -> None:
    network = zoo.build(name, (1, size, size), 3).eval()
    assert network(torch.rand(2, 1, size, size)).shape == (2, 3)


def test_parameter_counts() -> None:
    def count(name: str, **arguments: object) -> int:
        network = zoo.build(name, (3, 32, 32), 10, **arguments)
        return sum(parameter.numel() for parameter in network.parameters())

    convolutions = 3 * 64 + 64 * 64 + 64 * 128 + 2 * 128 * 128
    biases_and_norms = 3 * (2 * 64 + 3 * 128 + 512)
    assert count("cnn7") == 9 * convolutions + 16 * 16 * 128 * 512 + biases_and_norms + 5130
    # ResNet-20 has 0.27 million (He et al., table 6); its 1x1 shortcuts add 2,752 to option A.
    assert count("resnet", depth=20) == 269_722 + 2_752
    assert count("preact-resnet18") == 11_172_170  # 11.17 million


def test_cnn_small_has_the_published_layout() -> None:
    state = zoo.build("cnn-small", (1, 28, 28), 10).state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    assert shapes == {
        "0.weight": (16, 1, 4, 4),
        "0.bias": (16,),
        "2.weight": (32, 16, 4, 4),
        "2.bias": (32,),
        "5.weight": (100, 1568),
        "5.bias": (100,),
        "7.weight": (10, 100),
        "7.bias": (10,),
    }


def test_mlp_takes_any_widths_and_vectors() -> None:
    network = zoo.build("mlp", (30,), 2, widths=[7, 5], activation="softplus")
    assert [m.out_features for m in network if isinstance(m, nn.Linear)] == [7, 5, 2]
    assert sum(isinstance(m, nn.Softplus) for m in network) == 2
    assert [type(m) for m in zoo.build("mlp", (4,), 3, widths=())] == [nn.Flatten, nn.Linear]


def test_softplus_of_any_sharpness() -> None:
    for name, shape in (("mlp", (6,)), ("cnn-small", (1, 28, 28))):
        network = zoo.build(name, shape, 2, activation="softplus", beta=10.0)
        assert {m.beta for m in network if isinstance(m, nn.Softplus)} == {10.0}
        assert not any(isinstance(m, nn.ReLU) for m in network)


def test_arguments_that_came_later_are_told_where_they_are_set() -> None:
    """The hash of a model covers what is told: models from before keep theirs."""
    assert resolve("cnn-small", {}).describe() == "cnn-small"
    assert resolve("mlp", {}).describe() == "mlp(widths=(256, 256), activation='relu')"
    told = resolve("cnn-small", {"activation": "softplus", "beta": 5.0}).describe()
    assert told == "cnn-small(activation='softplus', beta=5.0)"
    assert resolve("cnn-small", {"beta": 1.0}).describe() == "cnn-small"


def test_narrow_cnn7() -> None:
    network = zoo.build("cnn7", (1, 28, 28), 10, width=16)
    widths = [m.out_channels for m in network if isinstance(m, nn.Conv2d)]
    assert widths == [16, 16, 32, 32, 32]
    assert sum(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for m in network) == 6


@pytest.mark.parametrize(
    ("name", "shape", "classes", "arguments", "words"),
    [
        ("cnn-smal", (1, 28, 28), 10, {}, "did you mean 'cnn-small'?"),
        ("cnn7", (1, 28, 28), 10, {"witdh": 16}, "witdh: Extra inputs"),
        ("cnn7", (1, 28, 28), 10, {"width": 0}, "greater than or equal to 1"),
        ("cnn-small", (1, 28, 28), 10, {"width": 3}, "arguments it takes: activation, beta"),
        ("cnn-small", (1, 28, 28), 10, {"activation": "softplus", "beta": 0.0}, "beta"),
        ("preact-resnet18", (3, 32, 32), 10, {"width": 3}, "arguments it takes: none"),
        ("mlp", (4,), 2, {"widths": [10**9]}, "65536"),
        ("mlp", (4,), 2, {"activation": "relux"}, "activation"),
        ("resnet", (3, 32, 32), 10, {"depth": 9}, "depth"),
        ("cnn-small", (30,), 2, {}, "needs images"),
        ("cnn-small", (1, 3, 3), 2, {}, "at least 4x4"),
        ("mlp", (10**6, 10**6, 10**6, 10**6), 2, {}, "mlp"),
        ("mlp", (65_536,), 2, {"widths": [65_536]}, "parameters"),
        ("mlp", (4,), 1, {}, "1 classes"),
        ("mlp", (0,), 2, {}, "not the shape"),
    ],
)
def test_bad_requests_are_one_line(
    name: str, shape: tuple[int, ...], classes: int, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        zoo.build(name, shape, classes, **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_normalized_is_the_affine_map_before_the_model() -> None:
    model = zoo.Normalized(nn.Identity(), [0.5, 0.25], [2.0, 0.5], (2, 3, 3))
    x = torch.rand(4, 2, 3, 3)
    out = model(x)
    assert torch.equal(out[:, 0], (x[:, 0] - 0.5) / 2.0)
    assert torch.equal(out[:, 1], (x[:, 1] - 0.25) / 0.5)
    assert not list(model.parameters())

"""What a traced graph is, and which models are turned away with what words."""

from __future__ import annotations

import pytest
import torch
from bound_checks import box_of, interval_domain
from bound_nets import Fn
from torch import nn
from torch.nn import functional as F

from certify.bind import bind, bind_model
from certify.errors import UnsupportedError
from certify.propagate import propagate
from certify.trace import trace, trace_model
from robustbench_c.zoo.nets.registry import build

X = torch.rand(3, 6)
IMAGES = torch.rand(3, 2, 8, 8)


def refused(model: nn.Module, x: torch.Tensor = X) -> str:
    """The one line with which a model is turned away, while it is traced or bounded."""
    with pytest.raises(UnsupportedError) as error:
        interval_domain(model, x)(box_of(x, 0.1))
    assert "\n" not in str(error.value)
    return str(error.value)


def holds(model: nn.Module, x: torch.Tensor) -> None:
    """The graph serves other batch sizes, and point boxes hold the values."""
    bounds = interval_domain(model.eval(), x)
    for rows in (x[:1], x, torch.cat([x, x.flip(0)])):
        found, value = bounds(box_of(rows, 0.0)), model(rows.clone())
        assert bool(((found.lower <= value) & (value <= found.upper)).all())


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [("mlp", {"activation": a}) for a in ("relu", "softplus", "tanh", "sigmoid", "gelu")]
    + [("cnn-small", {}), ("cnn7", {"width": 4}), ("resnet", {}), ("preact-resnet18", {})],
)
def test_every_architecture_of_the_zoo(architecture: str, arguments: dict[str, object]) -> None:
    if architecture == "mlp":
        arguments = {**arguments, "widths": (8, 8)}
    torch.manual_seed(0)
    holds(build(architecture, (2, 8, 8), 4, **arguments), IMAGES[:2])


def test_transformers_are_traced_by_their_parts() -> None:
    tokens = torch.rand(3, 5, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    holds(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), tokens)
    ops = {str(node.op) for node in trace_model(layer.eval(), tokens).nodes}
    assert not any("transformer" in op or "attention" in op for op in ops)
    assert torch.backends.mha.get_fastpath_enabled()


def test_attention_with_a_mask_and_the_batch_second() -> None:
    mask = torch.triu(torch.full((5, 5), -torch.inf), 1)
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    model.register_buffer("mask", mask[:, :].clamp_min(-50))
    holds(
        Fn(lambda x, m: m(x, x, x, attn_mask=m.mask, need_weights=False)[0], model),
        torch.rand(3, 5, 8),
    )


def test_dropout_and_batch_norm_in_eval_mode_leave_no_trace() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
    names = [str(node.op) for node in trace_model(model, X).nodes if node.op is not None]
    assert names == ["aten.t.default", "aten.addmm.default", "aten.batch_norm.default"]


def test_what_follows_from_parameters_alone_is_folded() -> None:
    model = Fn(lambda x, m: F.linear(x, m.weight * 2 + torch.ones(4, 6)), nn.Linear(6, 4))
    program = bind_model(model, trace_model(model, X))
    assert [node.name for node in program.nodes] == ["aten.mm.default"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.ones(6),
        lambda x: x * torch.arange(6),
        lambda x: x[:, torch.arange(3) + 1],
        lambda x: torch.cat([x, torch.zeros(len(x), 2), x.new_ones(len(x), 1)], 1),
        lambda x: x * torch.tensor([1.0, 0, 0, 2, 0, 0]),
        lambda x: x[:, [0, 3]],
        lambda x: (x * 2).relu_().add_(x).mul_(3),
        lambda x: (x * 2).clamp_(0.25, 0.5).sigmoid_(),
        lambda x: x.view_as(torch.zeros(x.shape)).flatten(1),
        lambda x: x.relu_(),
        lambda x: F.normalize(x, dim=1),
        lambda x: F.cosine_similarity(x, x + 1, dim=1).unsqueeze(1),
        lambda x: torch.zeros(len(x), 2),
    ],
)
def test_ways_of_writing_a_function(function: object) -> None:
    holds(Fn(function), X)  # type: ignore[arg-type]


def test_a_write_into_a_view_is_seen() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        view = y[:, 1:3]
        y[:, 0] = 1.0
        view.mul_(0.5)
        return y + view.sum(1, keepdim=True)

    holds(Fn(function), X)


def test_control_flow_that_depends_on_data() -> None:
    assert "must not depend on the data" in refused(Fn(lambda x: x if x.sum() > 0 else -x))
    assert "must not depend on the data" in refused(Fn(lambda x: x * float(x.sum())))


def test_a_tensor_from_outside_is_no_constant() -> None:
    label = torch.rand(6)
    assert "register it as a buffer" in refused(Fn(lambda x: x * label))


@pytest.mark.parametrize(
    "function",
    [lambda x: x - x.mean(0), lambda x: x * len(x), lambda x: x + torch.arange(len(x))[:, None]],
)
def test_rows_that_depend_on_each_other(function: object) -> None:
    assert "depends on the others" in refused(Fn(function))  # type: ignore[arg-type]


def test_what_it_computes_depends_on_the_batch_size() -> None:
    model = Fn(lambda x: x.relu() if len(x) == 2 else x.exp().relu())
    assert "batch size" in refused(model)


def test_training_mode() -> None:
    assert "call model.eval()" in refused(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))
    assert "call model.eval()" in refused(nn.Dropout(0.5))
    assert "draws random numbers" in refused(Fn(lambda x: x + torch.rand_like(x)))


def test_an_operation_without_a_rule_is_named_with_its_module() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), Fn(torch.sin)))
    line = refused(model)
    assert "aten.sin.default in 1.1 has no rule (docs/operators.md" in line
    assert "aten.sort.default in the model itself" in refused(Fn(lambda x: x.sort(1).values))


def test_embeddings_and_less_precise_types() -> None:
    model = Fn(lambda x, m: m(x.long()).flatten(1), nn.Embedding(5, 2))
    assert "aten._to_copy.default" in refused(model)
    assert "embedding" in refused(nn.Embedding(5, 2), torch.zeros(2, 3, dtype=torch.long))
    assert "aten._to_copy.default" in refused(Fn(lambda x: x.half().float()))


def test_labels_are_inputs_of_the_graph() -> None:
    def margin(values: dict[str, torch.Tensor]) -> torch.Tensor:
        x = values["x"]
        return x.gather(1, values["y"][:, None])[:, 0] - x.mean(1)

    y = torch.tensor([0, 1, 2])
    graph = trace(margin, {"x": X, "y": y}, frozenset({"x", "y"}))
    other = torch.tensor([5, 4, 3])
    torch.testing.assert_close(graph.run({"x": X, "y": other}), margin({"x": X, "y": other}))


def test_parameters_are_inputs_of_the_graph() -> None:
    model = nn.Linear(6, 4)
    graph = trace_model(model, X)
    other = {"weight": torch.randn(4, 6), "bias": torch.randn(4)}
    program = bind(graph, other)
    found = propagate(program, {"x": X})[program.output]
    value = F.linear(X, **other)
    assert bool(((found.lower <= value) & (value <= found.upper)).all())  # type: ignore[union-attr]

"""The linear domain over whole models: sound, the same for one sample as for many, and tight."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import robustbench_c  # noqa: F401  # sets the path of the siblings
from attacks.threat import ThreatModel
from certify import lirpa
from certify.ball import InputSet
from certify.bind import bind_model
from certify.crown import analyse, output_bounds
from certify.interval import as_interval
from certify.propagate import propagate
from certify.specification import margins
from certify.steps import STEPS
from certify.trace import trace_model
from robustbench_c.zoo.nets.registry import build


class Two(nn.Module):
    """A function of two linear layers' results."""

    def __init__(self, function, final=16):
        super().__init__()
        self.first, self.second = nn.Linear(64, 16), nn.Linear(64, 16)
        self.function, self.last = function, nn.Linear(final, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.last(self.function(self.first(x), self.second(x)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        score = self.query(x) @ self.key(x).mT / 8**0.5
        return self.last((score.softmax(-1) @ self.value(x)).flatten(1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.norms, self.last = nn.ModuleList([nn.BatchNorm2d(4) for _ in "ab"]), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.first(x)))
        return self.last(torch.relu(self.norms[1](self.second(y)) + y).flatten(1))


def mlp(act) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 24), act(), nn.Linear(24, 24), act(), nn.Linear(24, 10)
    )


def cnn(act) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, 2, 1), act(), nn.Conv2d(3, 4, 3, 2, 1), act(), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip


def pooled(pool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, 1, 1), nn.ReLU(), pool, nn.Flatten(1), nn.LazyLinear(10)
    )


class Reduced(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


MODELS = {
    "sigmoid mlp": lambda: mlp(nn.Sigmoid),
    "sigmoid cnn": lambda: cnn(nn.Sigmoid),
    "tanh mlp": lambda: mlp(nn.Tanh),
    "tanh cnn": lambda: cnn(nn.Tanh),
    "leaky relu": lambda: cnn(lambda: nn.LeakyReLU(0.2)),
    "prelu": lambda: cnn(nn.PReLU),
    "gelu": lambda: mlp(nn.GELU),
    "gelu tanh": lambda: mlp(lambda: nn.GELU("tanh")),
    "silu": lambda: cnn(nn.SiLU),
    "mish": lambda: mlp(nn.Mish),
    "softplus": lambda: mlp(nn.Softplus),
    "log sigmoid": lambda: mlp(nn.LogSigmoid),
    "elu": lambda: cnn(nn.ELU),
    "selu": lambda: mlp(nn.SELU),
    "celu": lambda: mlp(lambda: nn.CELU(0.5)),
    "relu6": lambda: cnn(nn.ReLU6),
    "hardtanh": lambda: mlp(nn.Hardtanh),
    "hardsigmoid": lambda: mlp(nn.Hardsigmoid),
    "hardswish": lambda: mlp(nn.Hardswish),
    "avg pool": lambda: pooled(nn.AvgPool2d(2)),
    "max pool": lambda: pooled(nn.MaxPool2d(2)),
    "max pool padded": lambda: pooled(nn.MaxPool2d(3, 2, 1)),
    "max pool ceil": lambda: pooled(nn.MaxPool2d(3, 2, ceil_mode=True)),
    "max pool dilated": lambda: pooled(nn.MaxPool2d(2, 1, dilation=2)),
    "global max": lambda: pooled(nn.AdaptiveMaxPool2d(1)),
    "amax": lambda: pooled(Reduced(lambda x: x.amax((2, 3)))),
    "amin": lambda: pooled(Reduced(lambda x: x.amin(1))),
    "max pool 1d": lambda: pooled(Reduced(lambda x: F.max_pool1d(x.flatten(2), 4))),
    "residual": Residual,
    "product": lambda: Two(lambda x, y: x.sigmoid() * y.relu()),
    "square": lambda: Two(lambda x, y: x * x - y),
    "broadcast": lambda: Two(lambda x, y: x * y[:, :1]),
    "quotient": lambda: Two(lambda x, y: x / (1 + y.exp())),
    "maximum": lambda: Two(torch.maximum),
    "minimum": lambda: Two(torch.minimum),
    "attention": Attention,
    "layer norm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 10)
    ),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    x = torch.rand(3, 1, 8, 8)
    model(x)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return model, x


def least(model: nn.Module, inputs: InputSet, rows: Tensor) -> Tensor:
    """Smallest value of each row found by gradient descent, corners and random points."""
    low, high = inputs.box.lower, inputs.box.upper
    count = rows.shape[1]
    draw = torch.Generator().manual_seed(3)
    found = torch.full(rows.shape[:2], torch.inf, dtype=torch.float64)

    def tried(x: Tensor) -> Tensor:
        z = model(x.flatten(0, 1)).unflatten(0, (len(low), count))
        return (z.double() * rows.double()).sum(2)

    span = (high - low)[:, None]
    for start in range(3):
        x = low[:, None] + span * torch.rand(len(low), count, *low.shape[1:], generator=draw)
        if start == 2:
            x = torch.where(x > (low + high)[:, None] / 2, high[:, None], low[:, None])
        for _ in range(8):
            x.requires_grad_(True)
            value = tried(x)
            found = torch.minimum(found, value.detach())
            (slope,) = torch.autograd.grad(value.sum(), x)
            x = x.detach() - slope.sign() * span / 4
            x = torch.minimum(torch.maximum(x, low[:, None]), high[:, None])
        found = torch.minimum(found, tried(x).detach())
    return found


def bounds(model: nn.Module, x: Tensor, eps: float, tighten: bool = True):
    with torch.no_grad():
        y = model(x).argmax(1)
        program = bind_model(model, trace_model(model, x[:2]))
        inputs = InputSet.around(x, ThreatModel.box("linf", eps))
        rows = margins(y, 10)
        known = analyse(program, inputs, tighten=tighten)
        return output_bounds(known, rows), rows, inputs, known


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("name", MODELS)
def test_no_point_is_below_the_bound(name, eps):
    model, x = made(name)
    for tighten in (False, True):
        found, rows, inputs, known = bounds(model, x, eps, tighten)
        assert bool(found.isfinite().all())
        assert bool((found <= least(model, inputs, rows.coefficients)).all())
        cut = analyse(known.program, inputs, tighten=False, lines=False)
        assert bool((found >= output_bounds(cut, rows)).all())
    if eps == 0:
        exact = (model.double()(x.double())[:, None] * rows.coefficients.double()).sum(2)
        assert bool((found <= exact).all())
        assert bool((found >= exact - 1e-3).all())


@pytest.mark.parametrize("name", MODELS)
def test_a_sample_alone_has_the_same_bounds(name):
    model, x = made(name)
    together, _, _, _ = bounds(model, x, 0.1)
    alone = torch.cat([bounds(model, x[i : i + 1], 0.1)[0] for i in range(len(x))])
    assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4)


def test_calls_without_lines_are_cut():
    model, x = made("layer norm")
    _, _, _, known = bounds(model, x, 0.05)
    ops = {n.index: str(n.op) for n in known.program.nodes}
    cut = [op for i, op in ops.items() if i not in {**known.lines, **known.steps}]
    assert any("layer_norm" in op for op in cut)


def test_batch_norm_is_folded_into_the_layer_before_it():
    model, x = made("residual")
    _, _, _, known = bounds(model, x, 0.05)
    assert not any("batch_norm" in str(n.op) for n in known.program.nodes if n.inputs[1:])
    assert sum("convolution" in str(n.op) for n in known.program.nodes) == 0
    assert len(known.program.nodes) == 7


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("max pool", "swapped"),
        ("attention", "swapped"),
        ("maximum", "shrunk"),
        ("product", "shrunk"),
    ],
)
def test_planted_bugs_are_seen(name, bug, monkeypatch):
    model, x = made(name)
    for op, stepping in STEPS.items():

        def make(call, make=stepping.make):
            step = make(call)
            if step is not None and bug == "swapped":
                step.lower, step.upper = step.upper, step.lower
            elif step is not None:
                gap = (step.upper - step.lower).abs() + 0.5
                step.lower, step.upper = step.lower + gap, step.upper - gap
            return step

        monkeypatch.setitem(STEPS, op, type(stepping)(make, stepping.open))
    with torch.no_grad():
        y = model(x).argmax(1)
        program = bind_model(model, trace_model(model, x[:2]))
        inputs = InputSet.around(x, ThreatModel.box("linf", 0.3))
        rows = margins(y, 10)
        found = output_bounds(analyse(program, inputs, tighten=True), rows)
    assert not bool((found <= least(model, inputs, rows.coefficients)).all())


def lirpa_bounds(model: nn.Module, inputs: InputSet, rows: Tensor, method: str) -> Tensor:
    module = lirpa.load()
    bounded = module.BoundedModule(model, torch.zeros_like(inputs.box.lower))
    ball = module.PerturbationLpNorm(norm=float("inf"), x_L=inputs.box.lower, x_U=inputs.box.upper)
    x = module.BoundedTensor(inputs.box.center, ball)
    lower, _ = bounded.compute_bounds(x=(x,), method=method, C=rows, bound_upper=False)
    return lower.detach().double()


def slack(model: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """The rounding term: what the bounds of a point lose."""
    found, _, _, _ = bounds(model, x, 0.0)
    exact = (model(x).double()[:, None] * rows.double()).sum(2)
    return (exact - found).detach()


@pytest.mark.parametrize("name", ["cnn7", "resnet"])
def test_zoo_models_are_as_tight_as_auto_lirpa(name):
    if (reason := lirpa.notice()) is not None:
        pytest.skip(reason)
    torch.manual_seed(1)
    model = build(name, (1, 28, 28), 10, width=2).eval()
    x = torch.rand(1, 1, 28, 28)
    found, rows, inputs, _ = bounds(model, x, 0.005)
    assert bool((found <= least(model, inputs, rows.coefficients)).all())
    theirs = lirpa_bounds(model, inputs, rows.coefficients, "CROWN")
    width = least(model, inputs, rows.coefficients) - theirs
    assert bool((found >= theirs - 1e-4 * width - 3 * slack(model, x, rows.coefficients)).all())


class PooledAndMasked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(12).view(3, 4) % 3 == 0)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool1d(x, 4)
        return (pooled.masked_fill(self.mask, 0.5) * 0.5).flatten(1)


def test_what_is_no_layer_is_not_folded():
    x = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0))
    model = PooledAndMasked().eval()
    program = bind_model(model, trace_model(model, x))
    known = analyse(program, InputSet.around(x, ThreatModel.box("linf", 0.0)), tighten=True)
    value, exact = known.values[program.output], model(x)
    assert bool(((value.lower <= exact) & (exact <= value.upper)).all())
    assert torch.allclose(value.lower, exact, atol=1e-5)


@pytest.mark.parametrize(("weight", "scale"), [(1e38, 1e-38), (1e38, 0.0), (1e-45, 1e38)])
def test_batch_norm_does_not_hide_what_a_layer_overflows_to(weight: float, scale: float) -> None:
    model = nn.Sequential(nn.Linear(10, 3), nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        model[0].weight.fill_(weight)
        model[0].bias.zero_()
        model[1].weight.fill_(scale)
    x = torch.full((2, 10), 0.5)
    program = bind_model(model, trace_model(model, x))
    found = as_interval(propagate(program, {"x": x})[program.output])
    value = model(x)
    holds = (found.lower <= value) & (value <= found.upper)
    assert bool((holds | found.lower.isnan()).all())

"""The judge of attacked explanations; what counts is legal to the last bit; planted bugs go red."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from attack_checks import check_inside
from test_explanation_attacks import Case
from torch import Tensor, nn

import attacks.explanation_search
from attacks.balls import Ball
from attacks.driver import in_float64
from attacks.errors import AttackError, ClassifierError
from attacks.explanation_attacks import (
    ExplanationAttackConfig,
    ExplanationAttackResult,
    ExplanationRecheck,
    attack_explanations,
    recheck_explanations,
)
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, explain
from attacks.softplus import SoftplusForReLU
from attacks.threat import ThreatModel, WeightBudget

N = 10
HELD = torch.tensor([True, False, False, True, False, False])
UNIT = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.1, 4.0])


class Leaky(nn.Module):
    """ReLUs called as functions, one of them leaky."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 12)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = nn.functional.leaky_relu(self.first(x), 0.1)
        found: Tensor = self.last(torch.relu(self.second(z)))
        return found


class Branching(Leaky):
    """Asks for a value, which no vmap allows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.detach().sum()) < 1e9 else x[:, :3]


def model_of(kind: type[Leaky] = Leaky) -> nn.Module:
    torch.manual_seed(0)
    model = kind().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    return model


def case(
    threat: ThreatModel | None, budget: WeightBudget | None = None, measure: str = "l2"
) -> Case:
    model = model_of()
    x = torch.rand(N, 6, generator=torch.Generator().manual_seed(1))
    config = ExplanationAttackConfig(steps=12, restarts=2)
    return Case(
        model,
        x,
        model(x).argmax(1),
        torch.arange(N) + 100,
        threat,
        budget,
        Explanation(),
        Criterion(measure),  # type: ignore[arg-type]
        config,
    )


CASES: dict[str, Callable[[], Case]] = {
    "linf": lambda: case(ThreatModel.box("linf", 0.3, immutable=HELD)),
    "linf, scaled": lambda: case(ThreatModel.box("linf", 0.3, immutable=HELD, scale=UNIT)),
    "l2": lambda: case(ThreatModel.box("l2", 0.5, immutable=HELD, scale=UNIT)),
    "l1": lambda: case(ThreatModel.box("l1", 0.8, immutable=HELD)),
    "weights": lambda: case(None, WeightBudget(0.1)),
    "absolute": lambda: case(None, WeightBudget(0.05, relative=False)),
    "joint": lambda: case(ThreatModel.box("linf", 0.1, immutable=HELD), WeightBudget(0.05)),
}


def judge(case: Case, result: ExplanationAttackResult) -> ExplanationRecheck:
    return recheck_explanations(
        case.model,
        in_float64(case.model, case.x),
        case.x,
        result.adversarial,
        case.target,
        case.threat,
        case.explanation,
        case.criterion,
        budget=case.budget,
        weights=result.weights,
    )


def check_honest(case: Case) -> None:
    """What was found is legal, keeps the prediction, and is as far away as was said."""
    result = case.run()
    if case.threat is not None:
        check_inside(case.threat, case.x, result.adversarial)
    else:
        assert torch.equal(result.adversarial, case.x)
    clean = explain(case.model, case.x, case.target).detach()
    for i in range(N):
        model = copy.deepcopy(case.model)
        with torch.no_grad():
            for name, w in model.named_parameters():
                if result.weights is None or case.budget is None:
                    continue
                moved, own = result.weights[name][i].double(), w.double()
                radius = case.budget.gamma * (own.abs() if case.budget.relative else 1)
                assert ((moved - own).abs() <= radius).all(), "beyond gamma"
                w.copy_(result.weights[name][i])
        at = result.adversarial[i : i + 1]
        assert int(model(at).argmax(1)) == int(case.target[i]), "the prediction is lost"
        now = explain(model, at, case.target[i : i + 1]).detach()
        away = float(case.criterion.distance(clean[i : i + 1], now))
        assert away == pytest.approx(float(result.distance[i]), abs=1e-5), "another distance"
    check = judge(case, result)
    assert check.legal.all()
    assert torch.equal(result.found, result.distance > case.criterion.threshold)
    assert (result.distance > 0).float().mean() >= 0.7, "nothing found"
    assert not result.not_finite.any()
    looks = case.config.restarts * (case.config.steps + 1)
    assert (result.forwards >= 2 * looks).all()
    assert (result.iteration <= case.config.steps).all()


def check_alone(case: Case) -> None:
    """Every sample alone gives what it gives in company."""
    whole = case.run()
    for i in (0, 3, N - 1):
        alone = case.rows(torch.tensor([i])).run()
        assert torch.equal(alone.adversarial[0], whole.adversarial[i])
        assert torch.equal(alone.distance[0], whole.distance[i])


@pytest.mark.parametrize("name", CASES)
def test_finds_are_honest(name: str) -> None:
    check_honest(CASES[name]())
    check_alone(CASES[name]())


@pytest.mark.parametrize("eps", [0.0, 1e-9])
def test_where_nothing_can_move_nothing_is_found(eps: float) -> None:
    nothing = case(ThreatModel.box("linf", eps), WeightBudget(0.0))
    result = nothing.run()
    assert (result.distance == 0).all() if eps == 0 else (result.distance < 1e-3).all()
    assert not result.found.any() or eps > 0


# planted bugs ------------------------------------------------------------------------------------

_limits, _step = WeightBudget.bounds, Ball.step


def doubled_gamma(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WeightBudget, "bounds", lambda b, w: _limits(replace(b, gamma=2 * b.gamma), w))


def no_projection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ball, "step", lambda ball, at, gradient, size: at + size * gradient.sign())


def prediction_forgotten(patch: pytest.MonkeyPatch) -> None:
    judged = attacks.explanation_search.Search._judge

    def look(search, rows, logits, value):
        found = judged(search, rows, logits, value)
        found.counts = torch.ones_like(found.counts)
        return found

    patch.setattr(attacks.explanation_search.Search, "_judge", look)


def surrogate_believed(patch: pytest.MonkeyPatch) -> None:
    """The distance read off the softplus net."""
    plain = attacks.explanation_search.ExplainedModel.explain
    patch.setattr(
        attacks.explanation_search.ExplainedModel,
        "explain",
        lambda model, points, seed, smooth=False: plain(model, points, seed, True),
    )


def a_step_late(patch: pytest.MonkeyPatch) -> None:
    record = ExplanationAttackResult.record

    def late(result, samples, points, restart, iteration):
        points = type(points)(points.x.roll(1, 0), points.weights)
        record(result, samples, points, restart, iteration)

    patch.setattr(ExplanationAttackResult, "record", late)


def one_stream(patch: pytest.MonkeyPatch) -> None:
    """Random numbers by place, not by sample."""
    patch.setattr(
        attacks.explanation_search.Search,
        "_random",
        lambda s, rows, keys: attacks.explanation_search.Points(
            Ball.around(s.threat, s.x[rows]).start(torch.arange(len(rows)))
        ),
    )


@pytest.mark.parametrize(
    ("plant", "name", "check"),
    [
        (doubled_gamma, "weights", check_honest),
        (doubled_gamma, "absolute", check_honest),
        (no_projection, "linf", check_honest),
        (prediction_forgotten, "linf", check_honest),
        (surrogate_believed, "linf", check_honest),
        (a_step_late, "linf", check_honest),
        (one_stream, "linf", check_alone),
    ],
)
def test_a_planted_bug_is_seen(
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
    check: Callable[[Case], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = CASES[name]()
    check(one)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(one)


# the judge ---------------------------------------------------------------------------------------


def test_the_judge_refuses_what_is_illegal_by_one_bit() -> None:
    one = case(ThreatModel.box("linf", 0.125, immutable=HELD))
    result = one.run()
    assert judge(one, result).legal.all()
    assert (judge(one, result).lower == result.distance).float().mean() > 0.5
    assert one.threat is not None
    high = one.threat.bounds(one.x)[1]
    beyond = torch.nextafter(high, torch.full_like(high, 9.0))
    for place in (1, 0):  # one that may move, and one that may not
        moved = one.x.clone()
        moved[:, place] = beyond[:, place]
        check = judge(one, replace(result, adversarial=moved))
        assert not check.legal.any()
        assert (check.lower == 0).all()
    nan = one.x.clone()
    nan[:, 1] = torch.nan
    assert not judge(one, replace(result, adversarial=nan)).legal.any()
    bare = replace(one, threat=None, budget=WeightBudget(0.1))
    assert not judge(bare, result).legal.any(), "an input moved where none may"


@pytest.mark.parametrize("relative", [True, False])
def test_the_judge_refuses_weights_beyond_gamma_by_one_bit(relative: bool) -> None:
    one = case(None, WeightBudget(0.125, relative))
    result = one.run()
    assert judge(one, result).legal.all()
    assert result.weights is not None
    assert one.budget is not None
    w = result.weights["first.weight"].clone()
    _, high = one.budget.bounds(one.model.first.weight)  # type: ignore[union-attr]
    w[3, 2, 1] = torch.nextafter(high[2, 1], torch.tensor(9.0))
    check = judge(one, replace(result, weights={**result.weights, "first.weight": w}))
    assert check.legal.tolist() == [i != 3 for i in range(N)]
    stranger = replace(one, budget=None)
    assert not judge(stranger, result).legal.any(), "weights moved where none may"


def test_the_judge_asks_for_the_prediction() -> None:
    one = case(ThreatModel.box("linf", 1.0))
    other = (one.target + 1) % 3
    check = recheck_explanations(
        one.model, None, one.x, one.x, other, one.threat, one.explanation, one.criterion
    )
    assert check.legal.all()
    assert not check.kept.any()
    assert check.kept64.all()
    assert check.distance64.isnan().all()
    assert (check.lower == 0).all()


def test_float64_has_a_say() -> None:
    """Where softmax is 1 in float32, the part of its error that goes with that class is lost."""
    model = nn.Linear(4, 2).eval()
    with torch.no_grad():
        model.weight.copy_(40 * torch.eye(2, 4))
        model.bias.zero_()
    x = torch.tensor([[0.4, 0.2, 0.5, 0.5]])
    bent = torch.tensor([[0.9, 0.2, 0.5, 0.5]])
    check = recheck_explanations(
        model,
        in_float64(model, x),
        x,
        bent,
        torch.tensor([0]),
        ThreatModel.box("linf", 0.6),
        Explanation(of="loss"),
        Criterion("cosine"),
    )
    assert float(check.distance) > 0.25
    assert float(check.distance64) < 1e-6
    assert float(check.lower) < 1e-6


# what else it promises ---------------------------------------------------------------------------


def test_models_that_cannot_be_batched_go_one_by_one() -> None:
    one = CASES["joint"]()
    together = one.run()
    branching = model_of(Branching)
    apart = replace(one, model=branching).run()
    assert torch.allclose(together.distance, apart.distance, rtol=0.05)
    assert judge(replace(one, model=branching), apart).legal.all()


def test_a_sample_is_left_alone_once_it_is_bent() -> None:
    one = replace(CASES["linf"](), criterion=Criterion("l2", 0.5))
    full = one.run()
    stopped = replace(one, config=replace(one.config, stop=True)).run()
    assert torch.equal(full.found, stopped.found)
    assert full.found.any()
    assert (stopped.forwards <= full.forwards).all()
    assert (stopped.forwards < full.forwards)[full.found].all()
    assert torch.equal(stopped.forwards[~full.found], full.forwards[~full.found])
    assert (stopped.distance > 0.5)[full.found].all()


def test_features_that_are_among_the_first_already_are_found_at_no_cost() -> None:
    one = CASES["linf"]()
    one = replace(one, criterion=Criterion("into-top-k", 0.0, k=6, features=(1, 2)))
    result = one.run()
    assert (result.distance == 2).all()
    assert result.found.all()
    assert (result.restart == -1).all()
    assert torch.equal(result.adversarial, one.x)


def test_progress_is_told() -> None:
    told = []
    one = CASES["weights"]()
    attack_explanations(
        one.model,
        one.x,
        one.target,
        one.ids,
        None,
        one.explanation,
        one.criterion,
        ExplanationAttackConfig(steps=1),
        0,
        budget=one.budget,
        progress=lambda done, bent: told.append((done, bent)),
    )
    assert [done for done, _ in told] == [8, N]


def test_no_samples() -> None:
    one = CASES["linf"]().rows(torch.arange(0))
    assert len(one.run().distance) == 0


def test_the_surrogate_is_softplus_for_modules_and_functions() -> None:
    z = torch.linspace(-2, 2, 41)
    softplus = nn.functional.softplus(z, beta=5.0)
    with SoftplusForReLU(5.0) as mode:
        for found in (nn.ReLU()(z), z.relu(), torch.relu(z), nn.functional.relu(input=z)):
            assert torch.equal(found, softplus)
        leaky = nn.LeakyReLU(0.2)(z)
        assert torch.equal(torch.tanh(z), z.tanh())
    assert mode.met == 5
    torch.testing.assert_close(leaky, 0.2 * z + 0.8 * softplus)
    assert torch.equal(nn.ReLU()(z), z.clamp_min(0))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps is 0 and restarts 1: both must be at least 1"),
        ({"restarts": 0}, "restarts 0"),
        ({"step_size": 0.0}, "step_size is 0.0: it must be positive and finite"),
        ({"surrogate": float("nan")}, "surrogate is nan"),
        ({"aim": "entropy"}, "no aim 'entropy': use one of measure, mass-centre"),
        ({"keep_logits": -1.0}, "keep_logits is -1.0"),
    ],
)
def test_settings_that_are_not_legal(settings: dict[str, object], says: str) -> None:
    with pytest.raises(AttackError, match=says):
        ExplanationAttackConfig(**settings)  # type: ignore[arg-type]


def test_calls_that_do_not_fit() -> None:
    one = CASES["linf"]()
    with pytest.raises(AttackError, match="nothing to attack: give a threat model or a weight"):
        replace(one, threat=None).run()
    with pytest.raises(AttackError, match="10 samples need as many explained classes, not 9"):
        replace(one, target=one.target[:9]).run()
    with pytest.raises(AttackError, match="an explanation has 6 entries"):
        replace(one, criterion=Criterion("top-k", k=7)).run()
    with pytest.raises(AttackError, match="lower has shape"):
        replace(one, threat=ThreatModel.box("linf", 0.1, torch.zeros(5), torch.ones(5))).run()
    with pytest.raises(ClassifierError, match=r"model\.eval"):
        replace(one, model=copy.deepcopy(one.model).train()).run()
    with pytest.raises(ClassifierError, match="logits of shape"):
        replace(one, model=nn.Linear(6, 1).eval()).run()

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from exact_nets import Case, exact_minimum, random_case, settle

import certify.ascent
import certify.branch
import certify.relus
from certify.ascent import Point
from certify.ball import InputSet
from certify.relus import Part, Relus
from certify.result import Certificates, Outcome
from certify.search import Search

NEAR = 1e-5


def mistakes(case: Case, found: Certificates) -> Counter[str]:
    """What is wrong with the results of a case, and what was not decided."""
    wrong: Counter[str] = Counter()
    for i in range(len(case.x)):
        least = exact_minimum(case, i)
        outcome = found.outcome[i]
        if found.lower[i] > least + 1e-9:
            wrong["bound above the minimum"] += 1
        if outcome is Outcome.CERTIFIED:
            wrong["certified"] += least <= 0
        elif outcome is Outcome.FALSIFIED:
            wrong["falsified"] += least >= NEAR
        else:
            wrong[outcome] += 1
    return +wrong


@pytest.mark.parametrize(
    "choices", [pytest.param(False, marks=pytest.mark.slow), True], ids=["rows", "choices"]
)
def test_agrees_with_all_activation_patterns(choices: bool) -> None:
    methods: Counter[str] = Counter()
    for seed in range(20):
        case = random_case(seed, choices=choices)
        found = settle(case)
        assert not mistakes(case, found), seed
        methods.update(found.method)
    assert methods["branch-and-bound"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("choices", [False, True], ids=["rows", "choices"])
def test_agrees_on_two_hundred_nets(choices: bool) -> None:
    for seed in range(200):
        case = random_case(seed, choices=choices, samples=2)
        assert not mistakes(case, settle(case)), seed


def test_decides_without_attack_and_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    # nothing but splits and the LPs of leaves is left
    for name in ("_RESTARTS", "_PROBE_STEPS", "_ROOT_STEPS", "_STEPS"):
        monkeypatch.setattr(certify.branch, name, 0)
    outcomes: Counter[Outcome] = Counter()
    for seed in range(6):
        for choices in (False, True):
            case = random_case(seed, choices=choices)
            found = settle(case)
            assert not mistakes(case, found)
            outcomes.update(
                o for o, m in zip(found.outcome, found.method, strict=True) if m != "crown"
            )
    assert outcomes[Outcome.CERTIFIED] >= 3
    assert outcomes[Outcome.FALSIFIED] >= 3


def test_falsified_samples_are_misclassified() -> None:
    count = 0
    for seed in range(10):
        case = random_case(seed)
        found = settle(case)
        assert found.candidates is not None
        low, high = case.threat.bounds(case.x)
        rows = case.specification.coefficients @ case.net(found.candidates)[:, :, None]
        rows = rows[:, :, 0] + case.specification.offset
        for i, outcome in enumerate(found.outcome):
            if outcome is Outcome.FALSIFIED:
                count += 1
                assert rows[i].amin() < 0
                assert (low[i] <= found.candidates[i]).all()
                assert (found.candidates[i] <= high[i]).all()
    assert count >= 5


def test_batched_equals_one_by_one() -> None:
    for seed in (1, 3, 4):
        case = random_case(seed, samples=4)
        together = settle(case)
        for i in range(4):
            alone = settle(case, torch.tensor([i]))
            assert alone.outcome[0] is together.outcome[i]
            assert alone.method[0] == together.method[i]
            assert alone.work[0] == together.work[i]
            torch.testing.assert_close(alone.lower[0], together.lower[i], rtol=1e-4, atol=1e-5)


def test_a_spent_budget_is_a_timeout() -> None:
    case = random_case(2, samples=12)
    whole, cut = settle(case), settle(case, budget=2)
    late = [i for i in range(12) if whole.work[i] > 4 and whole.outcome[i] is Outcome.CERTIFIED]
    assert late
    assert all(cut.outcome[i] is Outcome.TIMEOUT and cut.lower[i] <= 0 for i in late)


def test_leaves_at_zero_are_rounding() -> None:
    case = random_case(0)
    least = torch.tensor([exact_minimum(case, i) for i in range(3)])
    spec = case.specification
    case.specification = replace(spec, offset=spec.offset - least[:, None].float())
    found = settle(case)
    assert not mistakes(case, found) - Counter({Outcome.ROUNDING: 3})
    assert Outcome.ROUNDING in found.outcome


def test_an_exception_is_an_error_of_its_sample_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(2, samples=12)
    good, witness = settle(case), certify.branch.witness
    bad = next(i for i in range(12) if good.method[i] == "branch-and-bound")
    low = InputSet.around(case.x, case.threat).box.lower[bad]

    def broken(part: Part, *rest: object) -> object:
        if (part.known.inputs.box.lower == low).flatten(1).all(1).any():
            raise ValueError("the witness left\nthe court")
        return witness(part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(certify.branch, "witness", broken)
    found = settle(case)
    assert found.outcome[bad] is Outcome.ERROR
    assert found.detail[bad] == "ValueError: the witness left"
    rest = [i for i in range(12) if i != bad]
    assert [found.outcome[i] for i in rest] == [good.outcome[i] for i in rest]


def test_nan_bounds_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = certify.ascent.evaluate
    monkeypatch.setattr(certify.ascent, "evaluate", lambda *a: evaluate(*a) * torch.nan)
    case = random_case(2, samples=6)
    found = settle(case)
    late = [i for i in range(6) if found.method[i] not in ("crown", "attack")]
    assert late
    assert all(found.outcome[i] is Outcome.ERROR for i in late)
    assert all(found.lower[i] == -torch.inf for i in late)


def _flipped_multipliers(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = Part.bound
    monkeypatch.setattr(
        Part, "bound", lambda self, *a, **k: bound(replace(self, sign=-self.sign), *a, **k)
    )


def _wrong_side(monkeypatch: pytest.MonkeyPatch) -> None:
    restrict = Relus.restrict
    monkeypatch.setattr(
        Relus, "restrict", lambda self, i, s: replace(restrict(self, i, -s), sign=s)
    )


def _wild_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certify.relus, "legal", lambda slopes: 3 * slopes - 1)


def _other_subproblem(monkeypatch: pytest.MonkeyPatch) -> None:
    restrict = Relus.restrict

    def shuffled(self: Relus, sample: torch.Tensor, sign: torch.Tensor) -> Part:
        return replace(restrict(self, sample, sign.flip(0)), sign=sign)

    monkeypatch.setattr(Relus, "restrict", shuffled)


def _lost_child(monkeypatch: pytest.MonkeyPatch) -> None:
    children = certify.branch._Engine._children
    monkeypatch.setattr(
        certify.branch._Engine, "_children", lambda self, *a: children(self, *a)[::2]
    )


def _lost_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = certify.branch._Engine._plant

    def first_only(self: object, root: object, open_: torch.Tensor) -> object:
        return plant(self, root, open_ & (open_.cumsum(1) < 2))  # type: ignore[arg-type]

    monkeypatch.setattr(certify.branch._Engine, "_plant", first_only)


def _any_sum_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    ascend = certify.branch.ascend

    def stale(*a: object, **k: object) -> Point:
        found = ascend(*a, **k)  # type: ignore[arg-type]
        return replace(found, lower=found.lower.abs())

    monkeypatch.setattr(certify.branch, "ascend", stale)


def _optimistic_search(monkeypatch: pytest.MonkeyPatch) -> None:
    push = Search.push

    def proved(self: Search, part: object) -> None:
        if self.work < 4:
            push(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(Search, "push", proved)


BUGS = (
    _flipped_multipliers,
    _wrong_side,
    _wild_slopes,
    _other_subproblem,
    _lost_child,
    _lost_clause,
    _any_sum_of_weights,
    _optimistic_search,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__[1:])
def test_planted_bugs_are_seen(bug: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certify.branch, "_RESTARTS", 0)
    monkeypatch.setattr(certify.branch, "_PROBE_STEPS", 0)
    bug(monkeypatch)  # type: ignore[operator]
    for seed in (28, 35, 49, 66, *range(20)):
        case = random_case(seed)
        wrong = mistakes(case, settle(case, budget=40))
        if wrong["certified"] or wrong["bound above the minimum"] or wrong["falsified"]:
            return
    pytest.fail("nothing turned red")

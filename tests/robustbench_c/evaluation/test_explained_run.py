"""Runs about explanations, end to end on a small net."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import robustbench_c
from attacks.explanation_config import ExplanationAttackConfig
from attacks.explanation_measures import Criterion
from attacks.explanations import Explanation, explain
from attacks.threat import ThreatModel, WeightBudget
from certify.explaining import METHODS, ExplanationCertifier
from certify.interval import Interval
from leaderboards.errors import ContradictionError, RecordError
from leaderboards.store import RunStore
from robustbench_c.data import from_tensors
from robustbench_c.errors import CheckFailedError, ModelError, UsageError
from robustbench_c.evaluation import (
    ExplainConfig,
    explained_attacking,
    explained_lists,
    explained_proving,
    sharing,
)
from robustbench_c.evaluation.explained_config import config_of
from robustbench_c.evaluation.verify import verify

QUICK = ExplanationAttackConfig(steps=6)


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(1)
    x = torch.rand(50, 8)
    y = (x[:, :4].sum(1) > x[:, 4:].sum(1)).long()
    y[:3] = 1 - y[:3]
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
    model.append(nn.Linear(12, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), x, y


@pytest.fixture
def run(problem, tmp_path):
    model, x, y = problem

    def of(eps: float = 0.05, name: str = "runs", **options):
        settings = {"attack": QUICK, **options.pop("config", {})}
        return robustbench_c.evaluate_explanations(
            options.pop("model", model),
            options.pop("x", x),
            options.pop("y", y),
            ThreatModel.box("linf", eps),
            config=ExplainConfig(**settings),
            out=tmp_path / name,
            device="cpu",
            **options,
        )

    return of


def hashes(run) -> dict[str, str]:
    return {step.name: step.content_sha256 for step in run.summary.steps}


def test_every_sample_is_bounded_from_both_sides(run, problem) -> None:
    model, x, y = problem
    found = run(config={"methods": METHODS})
    summary = found.summary
    assert found.store.verify_bytes() == []
    assert summary.clean_accuracy.k == int((model(x).argmax(1) == y).sum()) < len(x)
    counts = summary.counts
    assert counts.wrong == counts.error == counts.not_run == 0
    assert min(counts.broken, counts.certified, counts.undecided) > 0
    attack = found.store.read_step("explain-attack").set_index("sample_id")
    for method in METHODS:
        proof = found.store.read_step(f"explain-{method}").set_index("sample_id")
        assert proof.index.tolist() == list(range(len(x)))
        assert (attack["explanation_distance"] <= proof["explanation_bound"]).all()
    assert summary.explanation.ratio.q10 >= 1


def test_the_predicted_class_is_explained_of_misclassified_samples_as_well(run, problem) -> None:
    model, x, y = problem
    criterion = Criterion("linf", 0.0)
    found = run(config={"criterion": criterion}, save_adversarial=True)
    rows = found.store.read_step("explain-attack").set_index("sample_id")
    target = model(x).argmax(1)
    wrong = (target != y).nonzero()[:, 0].tolist()
    file = next((found.folder / "adversarial" / "explain-attack").iterdir())
    held = safetensors.torch.load_file(file)
    clean, bent = (explain(model, held[k], target[held["ids"]]) for k in ("clean", "adversarial"))
    far = criterion.distance(clean, bent)
    told = torch.tensor(rows.loc[held["ids"].tolist(), "explanation_distance"].tolist())
    torch.testing.assert_close(told.double(), far, rtol=1e-4, atol=1e-7)
    assert set(wrong) & set(held["ids"].tolist())


def test_a_resume_gives_the_same_rows(run, monkeypatch) -> None:
    whole = hashes(run(name="whole"))
    monkeypatch.setattr(sharing, "MOST", 7)
    monkeypatch.setattr(explained_proving, "_UNITS", 1)
    calls = 0

    def stop(step: str, done: int, total: int, settled: int) -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise KeyboardInterrupt

    for _ in range(30):
        try:
            found = run(name="parts", progress=stop)
        except KeyboardInterrupt:
            continue
        break
    assert calls > 8
    assert found.resumed
    assert hashes(found) == whole


def test_order_and_batch_size_change_nothing(run, problem) -> None:
    _, x, y = problem
    threat = ThreatModel.box("linf", 0.05)
    data = from_tensors(x, y, lower=threat.lower, upper=threat.upper)
    first = run(name="a", x=data, y=None)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    second = run(name="b", x=data.subset(order), y=None, batch_size=32)
    assert hashes(first) == hashes(second)


def test_weights_may_move_alone_or_as_well(run) -> None:
    budget = {"budget": WeightBudget(0.02), "attack": ExplanationAttackConfig(steps=3)}
    alone = run(0.0, name="alone", config=budget)
    both = run(0.02, name="both", config=budget, save_adversarial=True)
    assert alone.summary.explanation.attack.median > 0
    assert alone.store.read_step("explain-attack")["distance"].max() == 0
    assert (
        both.summary.explanation.certificate.median > alone.summary.explanation.certificate.median
    )
    assert alone.store.verify_bytes() == both.store.verify_bytes() == []


@pytest.mark.parametrize(
    ("explanation", "other"),
    [
        (Explanation("smoothgrad", "logit", 2, noise=0.01 * torch.ones(2, 8)), None),
        (Explanation("integrated-gradients", "margin", 2, baseline=torch.full((8,), 0.5)), None),
        (Explanation("input-x-gradient", "loss"), None),
    ],
)
def test_every_kind_comes_back_from_its_record(run, problem, explanation, other) -> None:
    model, x, y = problem
    options = {"explanation": explanation, "attack": ExplanationAttackConfig(steps=2)}
    found = run(0.01, config=options)
    again = config_of(RunStore.open(found.folder))
    assert (again.explanation.kind, again.explanation.of) == (explanation.kind, explanation.of)
    for name, tensor in explanation.tensors.items():
        assert torch.equal(again.explanation.tensors[name], tensor)
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    result = verify(found.store, model, data, prove=True)
    assert result.problems == ()
    assert result.proved == result.certified
    if explanation.tensors:
        (found.folder / "explanation.safetensors").write_bytes(b"nothing")
        assert "damaged" in verify(found.store, model, data).problems[0]


def test_verify_replays_and_proves(run, problem) -> None:
    model, x, y = problem
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    for name, options in (
        ("inputs", {}),
        ("weights", {"budget": WeightBudget(0.05), "attack": ExplanationAttackConfig(steps=3)}),
    ):
        found = run(0.1, name=name, config=options, save_adversarial=True)
        result = verify(found.store, model, data, prove=True)
        assert result.problems == ()
        assert result.replayed == result.broken > 0
        assert result.proved == result.certified
    with pytest.raises(ModelError):
        verify(found.store, nn.Sequential(nn.Linear(8, 2)).eval(), data)


def test_verify_finds_points_that_do_not_bend(run, problem) -> None:
    model, x, y = problem
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    found = run(0.1, save_adversarial=True)
    file = next((found.folder / "adversarial" / "explain-attack").iterdir())
    held = safetensors.torch.load_file(file)
    held["adversarial"] = held["clean"].clone()
    file.write_bytes(safetensors.torch.save(held))
    problems = verify(found.store, model, data).problems
    assert any("does not bend" in line for line in problems)


class Narrow:
    """A planted bug: boxes around the clean explanation that hold nothing else."""

    def __init__(self, model, x, explanation) -> None:
        self.engine = ExplanationCertifier(model, x, explanation)

    def box(self, x, seed, threat=None, budget=None, method="crown-interval") -> Interval:
        return self.engine.box(x, seed, None, None, method)


def test_a_contradiction_stops_the_run_with_both_artefacts(run) -> None:
    with pytest.raises(ContradictionError) as caught:
        run(0.1, boxes=Narrow)
    folder = next(iter(caught.value.args[0].split("evidence is ")[1:])).rstrip(")")
    sample = caught.value.sample_ids[0]
    told = json.loads((Path(folder) / f"{sample}.json").read_text())
    assert told["certificate"]["explanation_bound"] < told["bent_by"]["explanation_distance"]
    held = safetensors.torch.load_file(f"{folder}/{sample}.safetensors")
    assert set(held) == {
        *("clean", "adversarial", "explanation", "explanation_bent"),
        *("box_lower", "box_upper"),
    }
    bent = held["explanation_bent"]
    assert bool(((bent < held["box_lower"]) | (bent > held["box_upper"])).any())
    with pytest.raises(ContradictionError):  # and stays so
        run(0.1)


def test_one_that_settles_neither_is_a_contradiction_too(run) -> None:
    loose = {"criterion": Criterion("linf", 1e6)}
    with pytest.raises(ContradictionError):
        run(0.1, boxes=Narrow, config=loose)


def test_what_fails_on_one_sample_is_its_error(run, problem) -> None:
    _, x, _ = problem

    class Fails(Narrow):
        def box(self, at, *rest):
            if bool((at == x[4]).flatten(1).all(1).any()):
                raise RuntimeError("not this one")
            return self.engine.box(at, *rest)

    found = run(0.01, boxes=Fails)
    rows = found.store.read_step("explain-crown-interval").set_index("sample_id")
    assert rows.loc[4, "detail"] == "RuntimeError: not this one"
    assert rows["verdict"].isin(["error"]).sum() == 1
    assert found.store.verify_bytes() == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_box_that_is_not_finite_is_an_error(run, problem, bad: float) -> None:
    _, x, _ = problem

    class Leaks(Narrow):
        def box(self, at, *rest):
            box = self.engine.box(at, *rest)
            upper = box.upper.clone()
            upper[(at == x[4]).flatten(1).all(1)] = bad
            return Interval(box.lower, upper)

    found = run(0.01, boxes=Leaks)
    rows = found.store.read_step("explain-crown-interval").set_index("sample_id")
    assert rows.loc[4, "detail"] == "the box is NaN or Inf: no bound"
    assert list(rows.index[rows["verdict"].isin(["error"])]) == [4]
    assert found.store.verify_bytes() == []


def test_a_kept_attack_cannot_be_asked_for_afterwards(run) -> None:
    run()
    with pytest.raises(RecordError, match="overwrite"):
        run(save_adversarial=True)


def test_settings_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(UsageError, match="no certificate"):
        ExplainConfig(methods=("crwn",))
    with pytest.raises(UsageError, match="neither"):
        ExplainConfig(attack=None, methods=())
    with pytest.raises(UsageError, match="name one"):
        ExplainConfig(methods=(), lipschitz=1)
    with pytest.raises(UsageError, match="ascending"):
        ExplainConfig(monotone=(3, 1))
    with pytest.raises(UsageError, match="monotone in feature 8: a sample has 8"):
        ExplainConfig(monotone=(0, 8)).info((8,))
    with pytest.raises(UsageError, match="from 1 to"):
        ExplainConfig(lipschitz=0)


def test_verify_finds_proofs_that_are_none(run, problem) -> None:
    model, x, y = problem
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    found = run(0.01)
    certified = found.summary.counts.certified
    assert certified > 0

    class Wide(Narrow):
        def box(self, *arguments) -> Interval:
            box = self.engine.box(*arguments)
            return Interval(box.lower - 100, box.upper + 100)

    result = verify(found.store, model, data, prove=True, boxes=Wide)
    assert result.proved == 0
    assert sum("cannot be proved again" in line for line in result.problems) == certified


def test_verify_finds_bounds_that_are_better_than_their_box(run, problem) -> None:
    model, x, y = problem
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    found = run(1.0)
    assert found.summary.counts.certified == 0

    class Wider(Narrow):
        def box(self, *arguments) -> Interval:
            box = self.engine.box(*arguments)
            return Interval(box.lower - 0.5, box.upper + 0.5)

    assert verify(found.store, model, data, prove=True).problems == ()
    problems = verify(found.store, model, data, prove=True, boxes=Wider).problems
    assert sum("is better than what is proved" in line for line in problems) == len(x)


def test_a_record_of_entries_that_are_not_there_is_refused(run, problem) -> None:
    model, x, y = problem
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    found = run(0.01)
    store = found.store
    info = store.manifest.protocol.explanation.model_copy(update={"k": 9})
    protocol = store.manifest.protocol.model_copy(update={"explanation": info})
    store.manifest = store.manifest.model_copy(update={"protocol": protocol})
    with pytest.raises(RecordError, match="k is 9, but an explanation has 8"):
        config_of(store)
    assert any("k is 9" in line for line in verify(store, model, data, prove=True).problems)


def test_an_attack_that_cheats_stops_the_run(run, monkeypatch) -> None:
    honest = explained_attacking.attack_explanations

    def outside(model, x, *rest, **options):
        result = honest(model, x, *rest, **options)
        result.adversarial, result.found[:] = result.adversarial + 0.5, True
        return result

    monkeypatch.setattr(explained_attacking, "attack_explanations", outside)
    with pytest.raises(CheckFailedError, match="a defect of the attack"):
        run(0.01)


def test_what_an_attack_only_claims_does_not_count(run, monkeypatch) -> None:
    honest = explained_attacking.attack_explanations

    def claims(model, x, *rest, **options):
        result = honest(model, x, *rest, **options)
        result.adversarial, result.found[:] = x.clone(), True
        result.distance[:] = 9.0
        return result

    monkeypatch.setattr(explained_attacking, "attack_explanations", claims)
    found = run(0.1, config={"criterion": Criterion("linf", 0.5)})
    rows = found.store.read_step("explain-attack")
    assert rows["verdict"].isna().all()
    assert rows["explanation_distance"].max() == 0
    assert rows["detail"].str.startswith("not reproduced").all()


def test_what_was_not_tried_has_no_rate(run) -> None:
    proofs = run(0.01, config={"attack": None}).summary.explanation
    assert (proofs.bent, proofs.attack, proofs.ratio) == (None, None, None)
    assert proofs.certified.k > 0
    attacks = run(0.01, config={"methods": ()}).summary.explanation
    assert (attacks.certified, attacks.certificate, attacks.metrics) == (None, None, {})
    assert attacks.bent.n == 50


def test_local_lipschitz_constants_are_in_the_first_certificate(run, problem) -> None:
    model, x, y = problem
    asked = {"attack": None, "methods": ("interval", "crown-interval"), "lipschitz": 3}
    found = run(config=asked)
    first, second = (found.store.read_step(f"explain-{m}") for m in asked["methods"])
    assert second["local_lipschitz_upper"].isna().all()
    lower, upper = (
        torch.from_numpy(np.stack(first[f"local_lipschitz_{end}"])) for end in ("lower", "upper")
    )
    assert lower.shape == upper.shape == (50, 2)
    assert set(first["work"]) <= {3, 5, 7}
    assert (first["work"] > 3).any()
    precise = copy.deepcopy(model).double()
    for _ in range(20):
        at = (x + 0.1 * torch.rand(50, 8) - 0.05).clamp(0, 1).double().requires_grad_()
        for label in range(2):
            (slope,) = torch.autograd.grad(precise(at)[:, label].sum(), at)
            assert bool((slope.abs().sum(1) <= upper[:, label]).all())
    metrics = found.summary.explanation.metrics
    assert metrics["local_lipschitz_lower"] == lower.amax(1).quantile(0.5, interpolation="lower")
    assert metrics["local_lipschitz_upper"] == upper.amax(1).quantile(0.5, interpolation="lower")
    assert metrics["local_lipschitz_lower"] > 0
    assert found.store.verify_bytes() == []
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    assert verify(found.store, model, data, prove=True).problems == ()


def test_local_lipschitz_constants_are_proved_again(run, problem, monkeypatch) -> None:
    model, x, y = problem
    x, y = x[:8], y[:8]
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    honest, apart = explained_lists.local_lipschitz, set()

    def forged(*arguments, **options):
        result = honest(*arguments, **options)
        gap = result.upper - result.lower
        apart.update((gap > 1e-2 * result.upper).any(1).nonzero()[:, 0].tolist())
        return replace(result, lower=result.lower + 0.4 * gap, upper=result.upper - 0.4 * gap)

    with monkeypatch.context() as patch:
        patch.setattr(explained_lists, "local_lipschitz", forged)
        found = run(0.2, x=x, y=y, config={"attack": None, "lipschitz": 1})
    assert found.store.verify_bytes() == []
    problems = verify(found.store, model, data, prove=True).problems
    for said in ("better than what is proved", "steeper than those that are found"):
        lines = [line for line in problems if said in line]
        assert {int(line.split("sample ")[1].split(":")[0]) for line in lines} >= apart != set()


def test_monotone_features_are_so_and_are_proved_again(run, problem, monkeypatch) -> None:
    model, x, y = problem
    data = from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    asked = {"attack": None, "methods": ("interval", "crown-interval"), "monotone": (0, 5)}
    found = run(0.01, config=asked)
    precise, target, grid = copy.deepcopy(model).double(), model(x).argmax(1), torch.rand(21).sort()
    proved = 0
    for method in asked["methods"]:
        rows = found.store.read_step(f"explain-{method}")
        signs = torch.from_numpy(np.stack(rows["monotone"])).long()
        for i, feature in enumerate(asked["monotone"]):
            at = (x + 0.02 * torch.rand(50, 8) - 0.01).clamp(0, 1).repeat(21, 1, 1).double()
            at[:, :, feature] = grid.values[:, None].double()
            score = precise(at)[:, torch.arange(50), target]
            rise = score.diff(dim=0) * signs[:, i]
            assert bool((rise >= -1e-9).all())
            proved += int((signs[:, i] != 0).sum())
    (first, second) = found.summary.explanation.monotone
    assert (first.name, second.name) == ("0", "5")
    best = np.stack(found.store.read_step("explain-crown-interval")["monotone"])
    assert first.increasing.k >= (best[:, 0] == 1).sum()
    assert proved > 0
    assert found.store.verify_bytes() == []
    assert verify(found.store, model, data, prove=True).problems == ()
    honest = explained_lists.certify_monotone

    def forged(*arguments, **options):
        result = honest(*arguments, **options)
        return replace(result, increasing=torch.ones_like(result.increasing))

    with monkeypatch.context() as patch:
        patch.setattr(explained_lists, "certify_monotone", forged)
        wrong = run(0.01, name="forged", config=asked)
    problems = verify(wrong.store, model, data, prove=True).problems
    assert any("cannot be proved again to be monotone" in line for line in problems)

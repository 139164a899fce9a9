"""Attacks and proofs by turns: every sample's verdict, its reason, and the record of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from toy_certifiers import (
    LOOSENESS,
    IntervalCertifier,
    LinearCertifier,
    changed,
    only,
    outcomes,
)

import robustbench_c
from attacks.errors import ClassifierError
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from certify.errors import CertifyError
from certify.result import Outcome
from leaderboards.errors import ContradictionError
from leaderboards.store import RunStore
from robustbench_c.errors import UsageError
from robustbench_c.evaluation import artefacts, contradiction, proving
from robustbench_c.evaluation.certifying import METHODS, Budget, CertifyConfig
from robustbench_c.evaluation.protocol_steps import TILES, Proof
from robustbench_c.evaluation.radius_plot import plot_radii

CASCADE = ["pgd-quick", "ibp", "crown-ibp", "crown", "pgd", "alpha-crown", "complete"]


@pytest.fixture
def linear(linear):
    """At a smaller eps, where about half of the samples are robust."""
    return replace(linear, eps=0.02)


@pytest.fixture
def prove(linear, tmp_path):
    """Evaluate the linear model with proofs by the exact prover."""

    def run(method="cascade", out=tmp_path / "runs", certifier=LinearCertifier.make, **options):
        names = ("budget", "radius", "cross_check")
        config = CertifyConfig(method, **{k: options.pop(k) for k in names if k in options})
        return linear.evaluate(out, certify=config, certifier=certifier, **options)

    return run


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles that cut the 55 samples, and a shard for each."""
    for name in TILES:
        monkeypatch.setitem(TILES, name, 8)
    monkeypatch.setattr(proving, "_UNITS", dict.fromkeys(METHODS, 1))


def expected(linear, eps=None):
    clean, worst = linear.margins(0.0), linear.margins(linear.eps if eps is None else eps)
    assert min(clean.abs().min(), worst.abs().min()) > 1e-5
    return [
        "wrong" if c < 0 else "broken" if w < 0 else "certified"
        for c, w in zip(clean.tolist(), worst.tolist(), strict=True)
    ]


class TestVerdicts:
    def test_cascade_settles_each_sample_as_the_closed_form_does(self, linear, prove):
        run = prove()
        assert run.verdicts["verdict"].tolist() == expected(linear)
        assert [step.name for step in run.summary.steps] == ["clean", *CASCADE]
        settled = {step.name: step.settled for step in run.summary.steps}
        assert all(settled[name] > 0 for name in ("pgd-quick", "ibp", "crown-ibp", "crown"))
        assert settled["alpha-crown"] > 0
        summary = run.summary
        rates = (summary.certified_accuracy, summary.robust_accuracy, summary.clean_accuracy)
        assert [rate.k for rate in rates] == [expected(linear).count("certified")] * 2 + [55]
        assert run.store.verify_bytes() == []
        assert run.store.manifest.reproducible

    @pytest.mark.parametrize("method", METHODS)
    def test_one_method_after_the_attack(self, linear, prove, method, rows):
        run = prove(method)
        assert [step.name for step in run.summary.steps] == ["clean", "pgd", method]
        exact = expected(linear)
        found = run.verdicts["verdict"].tolist()
        assert all(
            f == e or (f, e) == ("undecided", "certified")
            for f, e in zip(found, exact, strict=True)
        )
        assert (found == exact) == (method == "complete")
        table = rows(run, method)
        proved = table[table["verdict"] == "certified"]
        assert (proved["method"] == method).all()
        assert (proved["bound"] > 0).all()
        assert (table["work"] == (3 if method == "complete" else 1)).all()
        assert run.summary.steps[-1].work == table["work"].sum()

    def test_without_attack_the_complete_method_breaks_samples(self, linear, prove, rows):
        run = prove("complete", attack="none", save_adversarial=True)
        assert [step.name for step in run.summary.steps] == ["clean", "complete"]
        assert run.verdicts["verdict"].tolist() == expected(linear)
        broken = rows(run, "complete")[lambda table: table["verdict"] == "broken"]
        assert len(broken) > 5
        assert ((broken["margin"] < 0) & (broken["margin64"] < 0)).all()
        assert (broken["distance"] <= linear.eps).all()
        kept = [examples.ids.tolist() for examples in artefacts.read(run.store, "complete")]
        assert sorted(i for ids in kept for i in ids) == broken.index.tolist()
        assert run.summary.steps[1].broken == len(broken)

    def test_each_step_has_what_those_before_left_and_the_first_all(self, prove):
        run = prove()
        tried = {step.name: set(run.store.read_step(step.name)["sample_id"])
                 for step in run.summary.steps}  # fmt: skip
        settled = run.verdicts["settled_by"].fillna("-")
        order = [step.name for step in run.summary.steps]
        for number, name in enumerate(order):
            before = set(settled.index[settled.isin(order[:number])])
            if name == "ibp":  # it audits the broken ones
                before -= set(settled.index[settled == "pgd-quick"])
            assert tried[name] == set(settled.index) - before, name
        audited = next(step for step in run.summary.steps if step.name == "ibp")
        assert audited.audited == (settled == "pgd-quick").sum() > 0

    def test_the_audit_spends_the_least(self, linear, prove):
        prover = LinearCertifier.make(linear.model, linear.x[:1])
        run = prove("complete", certifier=lambda *_: prover, budget=Budget(7, 90))
        broken = set(run.verdicts.index[run.verdicts["verdict"] == "broken"])
        budgets = {ids: budget for _, ids, budget in prover.calls[1:]}
        for ids, budget in budgets.items():
            least = set(ids) <= broken
            assert least or not set(ids) & broken
            assert (budget.iterations, budget.subproblems) == ((1, 1) if least else (7, 90))


class TestRecord:
    def test_every_setting_is_in_the_protocol(self, prove):
        run = prove(budget=Budget(7, 90))
        steps = {step.name: step for step in run.store.manifest.protocol.steps}
        assert list(steps) == CASCADE
        assert steps["pgd-quick"].parameters["steps"] == 20
        assert steps["ibp"].parameters == {"method": "ibp", "tile": 128, "samples": "audit"}
        assert steps["crown"].parameters == {"method": "crown", "tile": 64, "samples": "open"}
        assert steps["alpha-crown"].parameters["iterations"] == 7
        assert steps["complete"].parameters["subproblems"] == 90
        for step in run.store.manifest.protocol.steps:
            if step.kind == "certificate":
                assert Proof.of(step).step(step.name) == step
        assert prove(budget=Budget(8, 90)).folder != run.folder

    def test_seconds_make_a_run_not_reproducible(self, prove):
        run = prove("crown", budget=Budget(seconds=2.0))
        assert not run.store.manifest.reproducible
        assert run.store.manifest.protocol.steps[-1].parameters["seconds"] == 2.0

    def test_no_influence_of_order_batches_and_shards(
        self, linear, prove, tmp_path, hashes, monkeypatch, small_tiles, small_shards
    ):
        """Bounds may hang on companions, so these do."""

        def with_companions(found, method, x, ids):
            return replace(found, lower=found.lower + 1e-9 * float(ids.sum()))

        sensitive = changed(with_companions)
        reference = prove(out=tmp_path / "a", certifier=sensitive, radius=True)
        assert len(reference.store.shard_paths("ibp")) > 3
        monkeypatch.setattr(proving, "_UNITS", dict.fromkeys(METHODS, 1000))
        monkeypatch.setattr(proving, "_GROUPS", 1)
        order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
        shuffled = replace_problem(linear, order)
        run = robustbench_c.evaluate(
            linear.model,
            shuffled,
            threat=linear.threat(),
            attack=PGDConfig(steps=10, restarts=2, loss="margin", goal="multi-targeted"),
            certify=CertifyConfig("cascade", radius=True),
            certifier=sensitive,
            batch_size=1,
            device="cpu",
            out=tmp_path / "b",
            diagnose=False,
        )
        assert len(run.store.shard_paths("ibp")) == 1
        assert run.folder.name == reference.folder.name
        assert hashes(run) == hashes(reference)

    def test_stopped_after_any_call_and_gone_on_with(
        self, linear, prove, tmp_path, hashes, small_tiles, monkeypatch
    ):
        monkeypatch.setitem(TILES, "crown", 64)  # by which radii are searched
        whole = prove(out=tmp_path / "whole", radius=True)
        prover = LinearCertifier.make(linear.model, linear.x[:1])
        prove(out=tmp_path / "count", radius=True, certifier=lambda *_: prover)
        calls = len(prover.calls)
        assert calls > 40
        for stop in (calls // 2,):
            left = [stop]

            def interrupted(found, method, x, ids, left=left):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt
                return found

            out = tmp_path / str(stop)
            with pytest.raises(KeyboardInterrupt):
                prove(out=out, radius=True, certifier=changed(interrupted))
            if (folder := out / whole.folder.name).exists():
                assert not (folder / "summary.json").exists()
                assert RunStore.open(folder).verify_bytes() == []
            run = prove(out=out, radius=True)
            assert hashes(run) == hashes(whole)
            assert run.summary.counts == whole.summary.counts

    def test_a_complete_run_is_returned_as_it_is(self, linear, prove):
        first = prove()
        before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
        prover = LinearCertifier.make(linear.model, linear.x[:1])
        again = prove(certifier=lambda *_: prover)
        assert again.resumed
        assert prover.calls == []
        assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before


def replace_problem(linear, order):
    from robustbench_c.data import from_tensors

    return from_tensors(linear.x, linear.y).subset(order)


class TestReasons:
    @pytest.mark.parametrize("outcome", ["unknown", "rounding", "timeout"])
    def test_open_samples_are_counted_by_reason(self, linear, prove, outcome, rows):
        def give_up(found, x, ids):
            return outcomes(found, Outcome(outcome), detail=("after 5",) * len(ids))

        run = prove("crown", certifier=only("crown", give_up))
        reasons = run.summary.undecided_by.model_dump()
        assert reasons.pop(outcome) == run.summary.counts.undecided
        assert set(reasons.values()) == {0}
        assert run.summary.counts.undecided == expected(linear).count("certified")
        assert run.summary.counts.error == 0
        assert set(rows(run, "crown")["detail"]) == {f"{outcome}: after 5"}
        assert run.store.verify_bytes() == []

    def test_an_exception_is_the_error_of_its_samples_alone(self, linear, prove, rows):
        reference = prove("complete").verdicts["verdict"]
        bad = reference.index[reference == "certified"][:2].tolist()

        def fail(found, method, x, ids):
            if set(ids.tolist()) & set(bad):
                raise ZeroDivisionError("no\nslope")
            return found

        run = prove("complete", certifier=changed(fail), overwrite=True)
        verdicts = run.verdicts["verdict"]
        assert (verdicts[bad] == "error").all()
        assert (verdicts.drop(bad) == reference.drop(bad)).all()
        assert set(rows(run, "complete").loc[bad, "detail"]) == {"ZeroDivisionError: no slope"}
        assert run.summary.steps[-1].errors == run.summary.counts.error == 2
        assert sum(run.summary.undecided_by.model_dump().values()) == 0
        assert run.summary.robust_accuracy.k == expected(linear).count("certified")
        assert run.summary.certified_accuracy.k == expected(linear).count("certified") - 2

    @pytest.mark.parametrize("bound", [float("nan"), float("inf"), 0.0, -1.0])
    def test_a_proof_without_a_positive_bound_is_an_error(self, prove, bound, rows):
        def claim(found, x, ids):
            return outcomes(found, Outcome.CERTIFIED, lower=torch.full_like(found.lower, bound))

        run = prove("crown", certifier=only("crown", claim))
        assert run.summary.counts.certified == 0
        assert run.summary.counts.error > 0
        assert rows(run, "crown")["detail"].str.startswith("called certified").all()
        assert run.store.verify_bytes() == []

    @pytest.mark.parametrize("kind", ["illegal", "right", "nothing"])
    def test_a_counterexample_that_does_not_hold_settles_nothing(self, linear, prove, kind, rows):
        def claim(found, x, ids):
            far = {"illegal": x + 0.2, "right": x, "nothing": None}[kind]
            return outcomes(found, Outcome.FALSIFIED, candidates=far)

        run = prove("complete", certifier=only("complete", claim))
        counts = run.summary.counts
        assert (counts.certified, counts.error) == (0, 0)
        assert run.summary.undecided_by.unconfirmed == counts.undecided > 0
        details = rows(run, "complete")["detail"]
        assert details.str.startswith("unconfirmed: the counterexample is ").all()
        assert run.store.verify_bytes() == []

    def test_an_unsupported_model_stops_before_the_first_sample(self, prove, tmp_path):
        def refuse(found, method, x, ids):
            if method == "crown":
                raise ClassifierError("no rule for aten.foo in the module 'body.3'")
            return found

        with pytest.raises(ClassifierError, match=r"aten\.foo in the module 'body\.3'") as stopped:
            prove(certifier=changed(refuse))
        assert stopped.value.exit_code == 3
        assert not (tmp_path / "runs").exists()

        def never(model, x):
            raise ClassifierError("no rule for aten.foo")

        with pytest.raises(ClassifierError):
            prove("ibp", certifier=never)
        assert not (tmp_path / "runs").exists()


class TestSandwich:
    """The check that certified and broken exclude each other has to be able to fire."""

    @pytest.fixture
    def unsound(self):
        def claim(found, x, ids):
            return outcomes(found, Outcome.CERTIFIED, lower=torch.full_like(found.lower, 0.125))

        return only("ibp", claim)

    @pytest.mark.parametrize("save", [False, True])
    @pytest.mark.parametrize("method", ["ibp", "cascade"])
    def test_an_unsound_certifier_stops_the_run_with_the_evidence(
        self, linear, prove, unsound, method, save, tmp_path
    ):
        with pytest.raises(ContradictionError, match="both certified and broken") as stopped:
            prove(method, certifier=unsound, save_adversarial=save)
        assert stopped.value.exit_code == 7
        (folder,) = (tmp_path / "runs").iterdir()
        assert str(folder / "contradiction") in str(stopped.value)
        ids = stopped.value.sample_ids
        assert len(ids) > 3
        files = {path.name for path in (folder / "contradiction").iterdir()}
        assert files == {f"{i}.{kind}" for i in ids for kind in ("json", "safetensors")}
        for sample in ids:
            check_evidence(folder / "contradiction", sample, linear, RunStore.open(folder))
        # and the run stays stopped, whoever goes on with it
        with pytest.raises(ContradictionError):
            prove(method, certifier=LinearCertifier.make, save_adversarial=save)
        assert not (folder / "summary.json").exists()
        assert "both certified and broken" in RunStore.open(folder).verify_bytes()[0]

    def test_a_radius_beyond_an_adversarial_example_stops_the_run(self, linear, prove, tmp_path):
        """No sample of it is called certified at eps by anybody."""

        def radius_only(model, x):
            real = LinearCertifier(model, [])

            class Stretched:
                def certify(self, method, x, y, ids, threat, budget, seed):
                    # below eps it proves thrice the radius that it should
                    if threat.eps < linear.eps:
                        threat, method = replace(threat, eps=threat.eps / 3), "complete"
                    return real.certify(method, x, y, ids, threat, budget, seed)

            return Stretched()

        with pytest.raises(ContradictionError) as stopped:
            robustbench_c.evaluate(
                linear.model,
                linear.x,
                linear.y,
                linear.threat(),
                attack=PGDConfig(steps=5, restarts=1, random_start=False, step_size=0.005),
                certify=CertifyConfig("crown", radius=True),
                certifier=radius_only,
                out=tmp_path / "runs",
                device="cpu",
                diagnose=False,
            )
        (folder,) = (tmp_path / "runs").iterdir()
        found = RunStore.open(folder).read_step("radius").set_index("sample_id")
        found = found.loc[list(stopped.value.sample_ids)]
        assert found["verdict"].isna().all()
        assert (found["radius"] < linear.eps).all()

    def test_what_complete_broke_is_made_again(self, linear, prove, monkeypatch, tmp_path):
        calls = []
        real = contradiction.save
        monkeypatch.setattr(contradiction, "save", lambda *a: (calls.append(a), real(*a)))

        def lies_about_radii(model, x):
            honest = LinearCertifier(model, [])

            class Liar:
                def certify(self, method, x, y, ids, threat, budget, seed):
                    found = honest.certify(method, x, y, ids, threat, budget, seed)
                    if threat.eps != linear.eps:
                        lower = torch.ones_like(found.lower)
                        return outcomes(found, Outcome.CERTIFIED, lower=lower)
                    return found

            return Liar()

        with pytest.raises(ContradictionError):
            prove("complete", attack="none", certifier=lies_about_radii, radius=True)
        assert len(calls) == 1
        (folder,) = (tmp_path / "runs").iterdir()
        (sample, *_) = sorted(int(p.stem) for p in (folder / "contradiction").glob("*.json"))
        check_evidence(folder / "contradiction", sample, linear, RunStore.open(folder))


def check_evidence(folder, sample, linear, store):
    import safetensors.torch

    told = json.loads((folder / f"{sample}.json").read_text())
    assert told["sample_id"] == sample
    assert told["label"] == int(linear.y[sample])
    assert told["certificate"]["bound"] > 0
    assert told["certificate"]["method"] in METHODS
    assert told["certificate"]["step"]["kind"] == "certificate"
    assert told["broken_by"]["distance"] <= linear.eps
    assert told["broken_by"]["margin"] < 0
    assert told["threat"]["eps"] == linear.eps
    assert told["model"]["sha256"] == store.manifest.model.sha256
    held = safetensors.torch.load_file(folder / f"{sample}.safetensors")
    assert torch.equal(held["clean"], linear.x[sample : sample + 1])
    gap = (held["adversarial"].double() - held["clean"].double()).abs().max()
    assert gap <= linear.eps
    assert int(linear.model(held["adversarial"]).argmax()) != int(linear.y[sample])


class TestRadius:
    def test_radii_are_the_closed_forms_within_the_tolerance(self, linear, prove, rows):
        run = prove("crown", radius=True)
        table = rows(run, "radius")
        assert len(table) == 55  # broken ones too
        weight = linear.model.weight.double()
        place = torch.tensor(table.index.to_numpy())
        gaps = weight[linear.y[place]][:, None] - weight[None]
        clean = torch.einsum("nkd,nd->nk", gaps, linear.x[place].double())
        bias = linear.model.bias.double()
        clean = clean + bias[linear.y[place]][:, None] - bias
        slope = gaps.abs().sum(2)
        slack = LOOSENESS["crown"] * slope.amax(1, keepdim=True)
        inside = (clean / (slope + slack)).scatter(1, linear.y[place][:, None], torch.inf).amin(1)
        near = inside < 0.25  # where the box does not help
        assert near.sum() > 30
        found = torch.tensor(table["radius"].to_numpy())
        ratio = (found / inside)[near & (inside > 0.05 * linear.eps)].detach()
        assert ratio.max() <= 1
        assert ratio.min() > 0.98
        # whatever is reported was proved at that radius
        assert (table["bound"][table["radius"] > 0] > 0).all()
        proved = table["radius"] >= linear.eps
        assert ((table["verdict"] == "certified") == proved).all()
        quantiles = run.summary.radius
        assert quantiles.samples == 55
        assert quantiles.median == table["radius"].quantile(0.5, "lower")
        plot_radii(run.store, run.summary)
        assert (run.folder / "certified-radius.png").read_bytes().startswith(b"\x89PNG")
        assert "crown" in (run.folder / "certified-radius.svg").read_text()
        assert run.store.verify_bytes() == []

    def test_what_the_cascade_proved_is_a_radius_of_eps_at_least(self, linear, prove, rows):
        run = prove(radius=True)
        table = rows(run, "radius")
        settled = run.verdicts
        proved = settled.index[settled["verdict"] == "certified"]
        assert (table.loc[proved, "radius"] >= linear.eps).all()
        by_complete = settled.index[settled["settled_by"].isin(["alpha-crown", "complete"])]
        exact = table.loc[[i for i in by_complete if i in set(proved)]]
        assert (exact["radius"] == linear.eps).any()  # crown alone does not reach it
        assert set(exact["method"]) <= {"alpha-crown", "complete", "crown"}

    def test_a_method_that_is_not_monotone_reports_what_it_proved(self, linear, prove, rows):
        proved_at: dict[int, set[float]] = {}

        def fickle(model, x):
            real = LinearCertifier(model, [])

            class Fickle:
                def certify(self, method, x, y, ids, threat, budget, seed):
                    found = real.certify("complete", x, y, ids, threat, budget, seed)
                    odd = (ids + round(threat.eps * 1e6)) % 3 == 0
                    outcome = tuple(
                        Outcome.UNKNOWN if o or f == Outcome.FALSIFIED else f
                        for o, f in zip(odd.tolist(), found.outcome, strict=True)
                    )
                    for i, o in zip(ids.tolist(), outcome, strict=True):
                        if o == Outcome.CERTIFIED:
                            proved_at.setdefault(i, set()).add(threat.eps)
                    return replace(found, outcome=outcome, candidates=None)

            return Fickle()

        run = prove("crown", radius=True, certifier=fickle)
        table = rows(run, "radius")
        for sample, radius in table["radius"].items():
            assert radius == max(proved_at.get(sample, {0.0}))

    def test_huge_eps_and_whole_box(self, linear, prove, rows):
        """Nothing lies beyond the box: who is proved there has the diameter as radius."""

        def all_proved(found, method, x, ids):
            return outcomes(found, Outcome.CERTIFIED, lower=torch.ones_like(found.lower))

        run = prove("crown", attack="none", radius=True, certifier=changed(all_proved))
        assert set(rows(run, "radius")["radius"]) == {1.0}

    def test_nothing_proved_is_radius_0(self, prove, rows):
        def none(found, method, x, ids):
            return outcomes(found, Outcome.UNKNOWN)

        table = rows(prove("crown", radius=True, certifier=changed(none)), "radius")
        assert set(table["radius"]) == {0.0}
        assert table["verdict"].isna().all()
        assert table["method"].isna().all()

    def test_eps_0_has_none(self, prove):
        with pytest.raises(UsageError, match="eps above 0"):
            prove("crown", radius=True, eps=0.0)


def test_interval_bounds_of_a_net_are_never_contradicted(tmp_path, linear):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        model[2].bias -= model(linear.x).mean(0)
        y = model(linear.x).argmax(1)
    run = robustbench_c.evaluate(
        model,
        linear.x,
        y,
        ThreatModel.box("linf", 0.01),
        attack=PGDConfig(steps=10, restarts=2),
        certify=CertifyConfig("ibp", radius=True),
        certifier=IntervalCertifier.make,
        out=tmp_path,
        device="cpu",
        diagnose=False,
    )
    counts = run.summary.counts
    assert min(counts.certified, counts.broken, counts.undecided) > 0
    sandwich = (run.summary.certified_accuracy, run.summary.robust_accuracy)
    assert sandwich[0].k <= sandwich[1].k <= run.summary.clean_accuracy.k


class TestUsage:
    def test_names_get_a_hint(self):
        with pytest.raises(UsageError, match="did you mean 'crown'"):
            CertifyConfig("crwn")
        assert CertifyConfig("cascade").budget == Budget(20, 2000, None)

    @pytest.mark.parametrize(
        "budget", [(0, 1), (1, 0), (1, 1, 0.0), (1, 1, float("nan")), (1, 1, float("inf"))]
    )
    def test_budgets_that_are_none(self, budget):
        with pytest.raises(CertifyError):
            Budget(*budget)

    def test_nothing_to_do(self, linear, tmp_path):
        with pytest.raises(UsageError, match="neither an attack nor a certificate"):
            linear.evaluate(tmp_path, attack="none")

"""A run: verdicts that are true, the same for every way of running, and on disk."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from torch import nn

import robustbench_c
import robustbench_c.errors
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel, feature_ranges
from leaderboards.listing import list_runs
from leaderboards.store import RunStore
from leaderboards.summary import Summary, summarise
from robustbench_c import zoo
from robustbench_c.data import from_tensors, load
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.threats import settled, threat_info, threat_of


def test_verdicts_are_those_of_the_closed_form(linear, tmp_path):
    run = linear.evaluate(tmp_path)
    clean, worst = linear.margins(0.0), linear.margins(linear.eps)
    assert min(clean.abs().min(), worst.abs().min()) > 1e-5  # no sample is a matter of rounding
    expected = ["wrong" if c < 0 else "broken" if w < 0 else "undecided" for c, w in zip(
        clean.tolist(), worst.tolist(), strict=True)]  # fmt: skip
    assert {"wrong", "broken", "undecided"} == set(expected)
    assert run.verdicts["verdict"].tolist() == expected
    assert run.summary.counts.wrong == expected.count("wrong") == 5
    assert run.summary.counts.broken == expected.count("broken")
    assert run.summary.robust_accuracy.k == expected.count("undecided")
    assert run.summary.clean_accuracy.k == 55
    assert not run.resumed


def test_rows_say_what_was_found(linear, tmp_path, rows):
    run = linear.evaluate(tmp_path)
    found = rows(run)
    broken = found[found["verdict"] == "broken"]
    assert ((broken["margin"] < 0) & (broken["margin64"] < 0)).all()
    assert (broken["prediction"] != broken["label"]).all()
    assert (broken["distance"] <= linear.eps).all()
    survived = found[found["verdict"].isna()]
    exact = linear.margins(linear.eps)[survived.index.tolist()]
    # PGD ends in the corner that is worst for the nearest class: the margin there is exact
    torch.testing.assert_close(
        torch.tensor(survived["margin"].to_numpy()), exact, atol=1e-5, rtol=1e-4
    )
    assert (survived["backwards"] == 2 * 10).all()


def test_record_is_on_disk_and_says_the_same(linear, tmp_path):
    run = linear.evaluate(tmp_path, seed=4)
    store = RunStore.open(run.folder)
    assert store.verify_bytes() == []
    assert summarise(store) == run.summary
    written = Summary.model_validate_json((run.folder / "summary.json").read_text())
    assert written == run.summary
    assert store.manifest.seed == 4
    assert store.manifest.model.name == "Linear"
    assert store.manifest.model.parameters == 39
    assert store.manifest.protocol.steps[0].parameters["step_size"] == linear.eps / 4
    assert [listed.folder for listed in list_runs(tmp_path)] == [run.folder]
    assert not (run.folder / "adversarial").exists()


def test_eps_zero_is_clean_accuracy(linear, tmp_path):
    summary = linear.evaluate(tmp_path, eps=0.0).summary
    assert summary.robust_accuracy == summary.clean_accuracy
    assert (summary.counts.broken, summary.counts.error) == (0, 0)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_eps_zero_is_clean_accuracy_in_other_norms(linear, tmp_path, norm):
    run = robustbench_c.evaluate(
        linear.model,
        linear.x,
        linear.y,
        ThreatModel.box(norm, 0.0),
        attack=PGDConfig(steps=3, restarts=1),
        out=tmp_path,
        device="cpu",
        diagnose=False,
    )
    assert run.summary.robust_accuracy == run.summary.clean_accuracy


@pytest.fixture(params=["mlp", "cnn"])
def classified(request, linear):
    """A model whose passes are more than one product, and 60 samples as a data set."""
    if request.param == "cnn":
        return zoo.load("fmnist-cnn-standard"), load("fashion-mnist-mini").head(60), 0.02
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 33), nn.ReLU(), nn.Linear(33, 3)).eval()
    with torch.no_grad():
        model[2].bias -= model(linear.x).mean(0)
        y = model(linear.x).argmax(1)
    y[:9] = (y[:9] + 1) % 3
    return model, from_tensors(linear.x, y), 0.01


def run_on(out, model, data, eps, **options):
    threat = ThreatModel("linf", eps, data.lower, data.upper)
    config = PGDConfig(steps=5, restarts=2)
    return robustbench_c.evaluate(
        model,
        data,
        threat=threat,
        attack=config,
        out=out,
        device="cpu",
        diagnose=False,
        **options,
    )


def test_results_do_not_depend_on_how_it_is_run(classified, tmp_path, monkeypatch, hashes, rows):
    model, data, eps = classified
    reference = run_on(tmp_path / "reference", model, data, eps, batch_size=1000)
    counts = reference.summary.counts
    assert min(counts.broken, counts.undecided, counts.wrong) > 0
    for size in (1, 7, 64):
        run = run_on(tmp_path / str(size), model, data, eps, batch_size=size)
        assert hashes(run) == hashes(reference)
    monkeypatch.setattr("robustbench_c.evaluation.sharing.MOST", 7)
    shuffled = data.subset(torch.randperm(60, generator=torch.Generator().manual_seed(1)))
    run = run_on(tmp_path / "shuffled", model, shuffled, eps)
    assert run.folder.name == reference.folder.name
    assert hashes(run) == hashes(reference)
    subset = run_on(tmp_path / "subset", model, shuffled.head(23), eps)
    assert subset.folder.name != reference.folder.name
    pd.testing.assert_frame_equal(
        rows(subset), rows(reference).loc[lambda all_rows: all_rows.index.isin(rows(subset).index)]
    )
    assert len(rows(subset, "clean")) == 23


def test_another_seed_is_another_run(linear, tmp_path):
    first, second = linear.evaluate(tmp_path, seed=0), linear.evaluate(tmp_path, seed=1)
    assert first.folder != second.folder


def test_complete_run_is_returned_as_it_is(linear, tmp_path, monkeypatch, hashes):
    first = linear.evaluate(tmp_path)
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    monkeypatch.setattr("robustbench_c.evaluation.attacking.search", None)  # it is not called
    again = linear.evaluate(tmp_path)
    assert again.resumed
    assert hashes(again) == hashes(first)
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before


def test_overwrite_runs_again(linear, tmp_path, hashes):
    first = linear.evaluate(tmp_path)
    (first.folder / "stray.txt").write_text("x")
    again = linear.evaluate(tmp_path, overwrite=True)
    assert not again.resumed
    assert not (first.folder / "stray.txt").exists()
    assert hashes(again) == hashes(first)
    assert [p.name for p in tmp_path.iterdir()] == [first.folder.name]


def test_examples_are_stored_when_asked_for(linear, tmp_path, rows):
    run = linear.evaluate(tmp_path, save_adversarial=True)
    found = rows(run)
    (stored,) = artefacts.read(run.store, "pgd")
    assert stored.ids.tolist() == found.index[found["verdict"] == "broken"].tolist()
    assert torch.equal(stored.clean, linear.x[stored.ids])
    assert bool((linear.model(stored.adversarial).argmax(1) != linear.y[stored.ids]).all())
    # x +- 0.05 cannot all be floats: nothing may lie beyond by even one bit
    assert (stored.adversarial.double() - stored.clean.double()).abs().max() <= linear.eps


def test_examples_cannot_be_asked_for_afterwards(linear, tmp_path):
    linear.evaluate(tmp_path)
    with pytest.raises(ValueError, match="--overwrite"):
        linear.evaluate(tmp_path, save_adversarial=True)
    assert linear.evaluate(tmp_path, save_adversarial=True, overwrite=True).summary.complete


class Scaled(nn.Module):
    """Two of these differ by what no weight shows."""

    def __init__(self, weight: torch.Tensor, factor: float = 1.0) -> None:
        super().__init__()
        self.hidden = weight  # neither a parameter nor a buffer
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * (x @ self.hidden)


def test_models_that_compute_differently_share_no_run(linear, tmp_path):
    weight = linear.model.weight.detach().T.contiguous()

    class Other(Scaled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -super().forward(x)

    Other.__qualname__ = Scaled.__qualname__
    models = [Scaled(weight), Scaled(weight, -1.0), Scaled(-weight), Other(weight)]
    folders = [linear.with_model(m.eval()).evaluate(tmp_path).folder for m in models]
    assert len(set(folders)) == 4
    assert linear.with_model(Scaled(weight.clone()).eval()).evaluate(tmp_path).resumed


def test_a_record_of_other_outputs_is_not_gone_on_with(linear, tmp_path, monkeypatch):
    """Where a difference escapes the hash (code in another file, say), the outputs tell."""
    monkeypatch.setattr("robustbench_c.evaluation.subject._how_it_computes", lambda _: "same")
    weight = linear.model.weight.detach().T.contiguous()
    linear.with_model(Scaled(weight).eval()).evaluate(tmp_path)
    with pytest.raises(robustbench_c.errors.RunError, match="not about this model"):
        linear.with_model(Scaled(weight, 2.0).eval()).evaluate(tmp_path)


def test_model_without_a_float64_form_is_judged_in_float32(linear, tmp_path):
    model = Scaled(linear.model.weight.detach().T.contiguous()).eval()
    run = linear.with_model(model).evaluate(tmp_path)
    assert run.summary.counts.broken > 0
    assert any("no float64 form" in line for line in run.store.manifest.notices)


def test_progress_goes_up_to_the_end(linear, tmp_path, small_shards):
    calls = []
    run = linear.evaluate(tmp_path, progress=lambda *call: calls.append(call))
    assert {(step, total) for step, _, total, _ in calls} == {("pgd", 55)}
    done, broken = [c[1] for c in calls], [c[3] for c in calls]
    assert done == sorted(done)
    assert broken == sorted(broken)
    assert (done[0], done[-1], broken[-1]) == (0, 55, run.summary.counts.broken)


def test_nan_inside_the_threat_model_is_an_error_and_not_robust(linear, tmp_path):
    class Hole(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bad = (x[:, :1] * 1000).round() % 2 == 1
            logits = self.inner(x)
            return torch.where(bad, torch.nan, logits)

    clear = (linear.x * 500).round() / 500  # the first feature is even in thousandths
    y = linear.model(clear).argmax(1)
    run = robustbench_c.evaluate(
        Hole(linear.model).eval(),
        clear,
        y,
        ThreatModel.box("linf", 0.004),
        attack=PGDConfig(steps=10, restarts=2),
        out=tmp_path,
        device="cpu",
        diagnose=False,
    )
    counts = run.summary.counts
    assert counts.error > 0
    assert run.summary.robust_accuracy.k == counts.undecided
    assert run.store.verify_bytes() == []


def test_summary_is_json_without_nan(linear, tmp_path):
    run = linear.evaluate(tmp_path)
    json.loads((run.folder / "summary.json").read_text(), parse_constant=pytest.fail)


class TestThreats:
    """A record can give back the very threat model that was used."""

    @pytest.fixture
    def data(self):
        return load("breast-cancer")

    @pytest.mark.parametrize("ranged", [False, True])
    @pytest.mark.parametrize("places", [(), (0,), (3, 4, 29)])
    def test_round_trip(self, data, ranged, places):
        scale = feature_ranges(data.lower, data.upper, data.shape) if ranged else None
        fixed = torch.zeros(30, dtype=torch.bool)
        fixed[list(places)] = True
        threat = settled(ThreatModel("l2", 0.5, data.lower, data.upper, fixed, scale), data)
        again = threat_of(threat_info(threat), data)
        assert again.sha256() == threat.sha256()
        assert (again.immutable is None) == (not places)

    def test_a_number_is_the_same_box_everywhere(self):
        data = from_tensors(torch.rand(4, 2, 2), torch.tensor([0, 1, 0, 1]))
        wide = ThreatModel.box("linf", 1, torch.zeros(2, 2), torch.ones(2, 2))
        assert settled(wide, data).sha256() == settled(ThreatModel.box("linf", 1), data).sha256()

    def test_what_no_record_can_hold_is_refused(self, data):
        scale = torch.ones(30)
        with pytest.raises(ValueError, match="no scale but the ranges"):
            settled(ThreatModel("linf", 0.1, data.lower, data.upper, None, scale), data)
        with pytest.raises(robustbench_c.errors.DataError, match="box is not that of"):
            settled(ThreatModel("linf", 0.1, data.lower - 1, data.upper), data)
        with pytest.raises(ValueError, match="shape"):
            settled(ThreatModel.box("linf", 0.1, torch.zeros(3), torch.ones(3)), data)

    def test_edited_manifest_is_found(self, data):
        info = threat_info(settled(ThreatModel("linf", 0.1, data.lower, data.upper), data))
        for change in ({"eps": 0.2}, {"immutable": "2"}, {"eps_unit": "range"}, {"norm": "l2"}):
            with pytest.raises(robustbench_c.errors.DataError, match="hash"):
                threat_of(info.model_copy(update=change), data)
        with pytest.raises(robustbench_c.errors.DataError, match="outside of the sample"):
            threat_of(info.model_copy(update={"immutable": "30"}), data)

"""Runs that look for the nearest adversarial example of every sample: records, curves, verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from toy_certifiers import LinearCertifier

import robustbench_c
from attacks.fab import FABConfig
from attacks.fmn import FMNConfig
from attacks.nearest import NearestConfig
from attacks.pgd import PGDConfig
from attacks.suites import Suite
from attacks.threat import ThreatModel
from leaderboards.distances import CURVE
from leaderboards.errors import ContradictionError, RecordError
from leaderboards.pairs import compare
from leaderboards.store import RunStore
from robustbench_c.data import from_tensors
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.radius_plot import plot_radii
from robustbench_c.evaluation.verify import verify

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
SMALL = NearestConfig(steps=40, restarts=1, queries=50)


def alone(config) -> Suite:
    return Suite("alone", (("search-minimal", config),), minimal=True)


def exact_distances(problem, norm: str) -> np.ndarray:
    """Of a linear model whose box is far away; infinite where the sample is wrong."""
    weight, bias = problem.model.weight.double(), problem.model.bias.double()
    gaps = weight[problem.y][:, None] - weight[None]
    value = torch.einsum("nkd,nd->nk", gaps, problem.x.double()) + bias[problem.y][:, None] - bias
    length = torch.linalg.vector_norm(gaps, DUAL[norm], dim=2)
    ratio = (value / length).scatter(1, problem.y[:, None], torch.inf).amin(1)
    return torch.where(ratio > 0, ratio, torch.inf).detach().numpy()


@pytest.fixture
def minimal(linear, tmp_path):
    def run(config=SMALL, norm="linf", eps=0.05, **options):
        options = {"attack": config, "device": "cpu", "out": tmp_path, "diagnose": False, **options}
        threat = ThreatModel.box(norm, eps, -9.0, 9.0)
        model, y = options.pop("model", linear.model), options.pop("y", linear.y)
        return robustbench_c.evaluate(model, options.pop("x", linear.x), y, threat, **options)

    return run


@pytest.mark.parametrize(
    ("norm", "config"),
    [
        ("linf", SMALL),
        ("l2", SMALL),
        ("l1", SMALL),
        ("linf", alone(FMNConfig(targets=2))),
        ("linf", alone(FABConfig(targets=2))),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "name", "nearest"),
)
def test_the_distance_on_record_is_the_exact_one(minimal, linear, norm, config):
    exact = exact_distances(linear, norm)
    eps = float(np.median(exact[np.isfinite(exact)]))
    run = minimal(config, norm, eps)
    found = run.distances
    right = np.isfinite(exact)
    assert (found["right"] == right).all()
    upper = found["upper"].to_numpy()[right]
    assert (upper >= exact[right] * (1 - 1e-6)).all()
    assert (upper <= exact[right] * 1.01).mean() >= 0.95
    # every right sample has a row, whatever its verdict, and the verdict follows from the distance
    step = run.store.steps[1]
    rows = run.store.read_step(step).set_index("sample_id")
    assert rows.index.tolist() == np.flatnonzero(right).tolist()
    assert ((rows["verdict"] == "broken").fillna(False) == (rows["distance"] <= eps)).all()
    assert set(rows["verdict"].dropna()) == {"broken"}
    assert run.summary.robust_accuracy.k == (found["upper"][right] > eps).sum() > 0
    assert run.summary.distance.median == np.quantile(upper, 0.5, method="lower")
    assert (run.summary.distance.searched, run.summary.distance.samples) == (right.sum(),) * 2
    assert run.summary.distance.within_1_percent is None
    data = from_tensors(linear.x, linear.y, lower=-9.0, upper=9.0)
    assert verify(run.store, linear.model, data).problems == ()


@pytest.mark.slow
def test_it_hangs_on_the_sample_alone_and_resumes(minimal, linear, tmp_path, hashes, small_shards):
    class StopError(Exception):
        pass

    def stop(step, done, total, broken):
        if done > 14:
            raise StopError

    whole = minimal()
    with pytest.raises(StopError):
        minimal(out=tmp_path / "other", progress=stop)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    data = from_tensors(linear.x, linear.y, lower=-9.0, upper=9.0).subset(order)
    run = minimal(x=data, y=None, out=tmp_path / "other", batch_size=1)
    assert run.resumed
    assert hashes(run) == hashes(whole)


def test_examples_beyond_eps_are_kept_and_checked_again(minimal, linear, tmp_path):
    run = minimal(save_adversarial=True)
    data = from_tensors(linear.x, linear.y, lower=-9.0, upper=9.0)
    found = verify(run.store, linear.model, data)
    assert found.problems == ()
    assert found.replayed == 55 > run.summary.counts.broken
    (path,) = (run.folder / "adversarial").glob("*/*.safetensors")
    held = safetensors.torch.load_file(path)
    far = int(run.distances["upper"].loc[held["ids"].numpy()].argmax())
    held["adversarial"][far] = held["clean"][far]
    safetensors.torch.save_file(held, path)
    told = " ".join(verify(run.store, linear.model, data).problems)
    assert "its example is classified rightly" in told
    assert "its example is not at its distance" in told


class TestBesideProofs:
    CERTIFY = CertifyConfig("crown", radius=True)

    def test_the_curve_is_what_the_records_say(self, minimal, tmp_path):
        run = minimal(certify=self.CERTIFY, certifier=LinearCertifier.make)
        assert run.store.steps == ("clean", "nearest", "crown", "radius")
        plot_radii(run.store, run.summary)
        curve = pd.read_csv(run.folder / CURVE)
        frames, n = run.store.read_steps(), 60
        radius = frames["radius"].set_index("sample_id")["radius"]
        apart = frames["nearest"].set_index("sample_id")["distance"]
        for row in curve.itertuples():
            assert row.certified == (radius >= row.eps).sum()
            assert row.empirical == (apart > row.eps).sum()
            assert row.samples == n
        assert (curve["certified"] <= curve["empirical"]).all()
        assert (curve["certified"] < curve["empirical"]).any()
        assert {0.0, 0.05, *radius, *apart} == set(curve["eps"])
        here = curve.set_index("eps").loc[0.05]
        assert here["empirical"] == run.summary.robust_accuracy.k
        assert here["certified"] == run.summary.certified_accuracy.k
        assert run.summary.distance.within_10_percent.k < 55
        assert run.store.verify_bytes() == []
        drawn = (run.folder / "accuracy-curve.svg").read_text()
        assert "certified (crown)" in drawn
        assert (run.folder / "accuracy-curve.png").read_bytes().startswith(b"\x89PNG")
        text = (run.folder / CURVE).read_text().replace(",60\n", ",61\n", 2)
        (run.folder / CURVE).write_text(text)
        assert [p for p in run.store.verify_bytes() if "not what the shards give" in p]

    def test_an_exact_proof_closes_the_gap(self, minimal):
        run = minimal(certify=CertifyConfig("complete", radius=True), certifier=exact)
        closed = run.summary.distance
        assert closed.within_10_percent.k == 55
        assert closed.within_1_percent.k > 20  # radii are tried at steps of 1%

    @pytest.mark.parametrize("kept", [True, False])
    def test_a_radius_beyond_what_was_found_stops_the_run(self, minimal, linear, tmp_path, kept):
        """Beyond eps as well, where no verdict contradicts it."""
        with pytest.raises(ContradictionError) as caught:
            minimal(certify=self.CERTIFY, certifier=too_far, save_adversarial=kept)
        (folder,) = tmp_path.iterdir()
        store = RunStore.open(folder)
        apart = store.read_step("nearest").set_index("sample_id")["distance"]
        wrong = [i for i in caught.value.sample_ids if apart[i] > 0.05]
        assert wrong
        held = safetensors.torch.load_file(folder / "contradiction" / f"{wrong[0]}.safetensors")
        moved = (held["adversarial"] - held["clean"]).double().abs().max()
        assert float(moved) == apart[wrong[0]]
        assert linear.model(held["adversarial"]).argmax(1) != linear.y[wrong[0]]
        with pytest.raises(ContradictionError):
            minimal(certify=self.CERTIFY, certifier=too_far, save_adversarial=kept)
        with pytest.raises(RecordError):
            store.write_summary()


def exact(model, x):
    """Gives nothing away."""

    class Exact(LinearCertifier):
        def certify(self, method, *rest):
            return super().certify("complete", *rest)

    return Exact(model, [])


def too_far(model, x):
    """At radii alone, it proves 1.5 times what is so."""

    class TooFar(LinearCertifier):
        def certify(self, method, x, y, ids, threat, *rest):
            if threat.eps > 0.05:
                threat = replace(threat, eps=threat.eps / 1.5)
            return super().certify("alpha-crown", x, y, ids, threat, *rest)

    return TooFar(model, [])


def test_two_models_compare(minimal, linear, tmp_path):
    other = torch.nn.Linear(12, 3).eval()
    other.load_state_dict(linear.model.state_dict())
    with torch.no_grad():
        other.bias += torch.tensor([0.1, 0.0, 0.0])
    runs = minimal(), minimal(model=other, out=tmp_path / "other")
    samples, pairs = compare(*(run.store for run in runs))
    assert samples == 60
    assert [pair.rate for pair in pairs] == ["clean", "robust"]


def test_rows_that_say_too_much_are_found(minimal):
    run = minimal()
    rows = run.store.read_step("nearest")
    near = rows["distance"] <= 0.05
    assert near.any()
    assert not near.all()
    for change, told in (
        (rows.assign(verdict=None), "a distance, but it is not broken"),
        (rows.assign(prediction=rows["label"]), "beyond eps, but it is classified rightly"),
    ):
        (path,) = run.store.shard_paths("nearest")
        path.unlink()
        run.store.write_shard("nearest", change)
        assert [p for p in run.store.verify_bytes() if told in p]


def test_an_attack_that_cannot_is_refused(minimal):
    with pytest.raises(UsageError, match="does not look for the nearest"):
        minimal(alone(PGDConfig()))

"""Records of smoothed classifiers: right, repeatable, and never those of the model inside."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from certify.smoothing import SmoothingConfig, SmoothingError
from certify.voting import Votes
from leaderboards.errors import RecordError
from leaderboards.store import RunStore
from robustbench_c.data import from_tensors
from robustbench_c.evaluation import sharing, smoothing
from robustbench_c.evaluation.smoothed_result import read_result
from robustbench_c.evaluation.smoothing_rows import estimation_rows, selection_rows

CONFIG = SmoothingConfig(0.2, n0=60, n=300, alpha=0.01)


@pytest.fixture
def data(linear):
    return from_tensors(linear.x, linear.y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))


@pytest.fixture
def smooth(linear, data, tmp_path):
    def run(config=CONFIG, samples=data, out="runs", **options):
        return smoothing.smooth(linear.model, samples, config, out=tmp_path / out, **options)

    return run


def l2_radii(model: nn.Linear, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Distance to the nearest border of a linear model: no radius of g of two classes is larger."""
    weight, bias = model.weight.double(), model.bias.double()
    gaps = weight[y][:, None] - weight[None]
    value = torch.einsum("nkd,nd->nk", gaps, x.double()) + (bias[y][:, None] - bias)
    distance = value / gaps.norm(dim=2)
    return distance.scatter(1, y[:, None], torch.inf).amin(1).detach().numpy()


def test_rows_say_what_was_found(smooth, linear, hashes):
    run = smooth(eps=0.05)
    clean, rows = run.store.read_step("clean"), run.store.read_step("smoothing")
    assert run.store.verify_bytes() == []
    wrong = clean["verdict"].isin(["wrong"])
    assert set(range(5)) <= set(clean["sample_id"][wrong])  # their labels are not the model's
    assert (clean["forwards"] == 60).all()
    assert list(rows["sample_id"]) == list(clean["sample_id"][~wrong])
    given = rows["radius"].notna()
    assert 10 < given.sum() < len(rows)
    assert (rows["prediction"][given] == rows["label"][given]).all()
    assert (rows["verdict"].isin(["certified"]) == (rows["radius"] > 0.05)).all()
    expected = CONFIG.radius(rows["votes"].to_numpy(np.int64))
    np.testing.assert_array_equal(rows["radius"][given], expected[given])
    # P[label] is at most that of winning against one rival, which the distance to it gives
    true = l2_radii(linear.model, linear.x, linear.y)[rows["sample_id"][given]]
    assert (rows["radius"][given] <= true).mean() == 1
    counts = run.summary.counts
    assert (counts.wrong, counts.certified) == (wrong.sum(), (rows["radius"] > 0.05).sum())
    assert counts.undecided == 60 - counts.wrong - counts.certified
    assert (counts.broken, counts.error, counts.not_run) == (0, 0, 0)


def test_result_counts_every_sample_once(smooth):
    run = smooth()
    rows = run.store.read_step("smoothing")
    result = read_result(run.store)
    kinds = (result.right, result.abstained, result.wrong, result.failed)
    assert sum(rate.k for rate in kinds) == 60
    assert result.abstained.k == rows["prediction"].isna().sum() > 0
    assert result.certified(0.0).k == run.summary.counts.certified
    middle = float(np.median(result.radii))
    assert result.certified(middle).k == (rows["radius"] > middle).sum()
    assert result.certified(result.largest_radius).k == 0
    assert result.reported_radii() == (0.25, 0.5, 0.75, 1.0)


def test_results_depend_on_neither_order_nor_batch_nor_shards(smooth, data, hashes, monkeypatch):
    whole = hashes(smooth())
    backwards = data.subset(list(range(59, -1, -1)))
    assert hashes(smooth(samples=backwards, out="backwards")) == whole
    assert hashes(smooth(out="small", batch_size=1)) == whole
    monkeypatch.setattr(sharing, "MOST", 7)
    assert hashes(smooth(out="shards")) == whole
    assert hashes(smooth(out="seed", seed=1)) != whole


def test_two_at_once_make_the_record_of_one(smooth, hashes, small_shards, monkeypatch):
    whole, write = smooth(), RunStore.write_shard
    runs, written = [], []

    def counting(store, step, frame, *more):
        written.append((step, *sorted(frame["sample_id"])))
        return write(store, step, frame, *more)

    def work(start: float) -> None:
        runs.append(smooth(out="shared", start=start))

    monkeypatch.setattr(RunStore, "write_shard", counting)
    workers = [threading.Thread(target=work, args=(start,)) for start in (0, 0.5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [hashes(run) for run in runs] == [hashes(whole)] * 2
    assert len(set(written)) == len(written) > 10, "no shard twice"
    assert not (runs[0].folder / "leases").exists()


@pytest.mark.parametrize("stop", [("clean", 14), ("clean", 60), ("smoothing", 21)])
def test_a_stopped_run_goes_on(smooth, hashes, monkeypatch, stop):
    class StoppedError(Exception):
        pass

    def stopping(step, done, total, certified):
        if (step, done) == stop:
            raise StoppedError

    whole = hashes(smooth())
    monkeypatch.setattr(sharing, "MOST", 7)
    with pytest.raises(StoppedError):
        smooth(out="stopped", progress=stopping)
    monkeypatch.setattr(sharing, "MOST", 11)
    run = smooth(out="stopped")
    assert run.resumed
    assert hashes(run) == whole
    assert run.store.verify_bytes() == []


def test_a_finished_run_is_read_not_repeated(smooth, monkeypatch):
    first = smooth()
    monkeypatch.setattr(smoothing, "vote", None)
    assert smooth().summary == first.summary
    with pytest.raises(TypeError):
        smooth(overwrite=True)


def test_its_record_is_never_one_of_the_model(smooth, linear, tmp_path):
    of_g, of_f = smooth().store, linear.evaluate(tmp_path / "runs").store
    g, f = of_g.manifest, of_f.manifest
    assert g.data == f.data
    assert g.model.name.startswith("smoothed classifier of Linear, sigma 0.2, n0 60, n 300")
    assert g.model.sha256 != f.model.sha256 == g.model.card["base"]
    assert g.protocol_sha256 != f.protocol_sha256
    assert g.identity() != f.identity()
    for there, here in ((of_g, f), (of_f, g)):
        with pytest.raises(RecordError, match=r"another run and cannot be resumed: model\.sha256"):
            RunStore.create(there.folder, here)
    with pytest.raises(RecordError, match="not about a smoothed classifier"):
        read_result(of_f)
    (shard,) = of_g.shard_paths("clean")
    for old in of_f.shard_paths("clean"):
        old.unlink()
    (of_f.folder / "shards" / "clean" / shard.name).write_bytes(shard.read_bytes())
    with pytest.raises(RecordError, match="a shard of another run"):
        of_f.read_step("clean")


@pytest.mark.parametrize(
    ("change", "same_subject"),
    [({"sigma": 0.3}, False), ({"n0": 61}, True), ({"n": 301}, True), ({"alpha": 0.02}, True)],
)
def test_every_setting_is_another_protocol(smooth, data, change, same_subject):
    few = data.head(2)
    one, other = (
        smooth(config, samples=few).store.manifest for config in (CONFIG, replace(CONFIG, **change))
    )
    assert one.protocol_sha256 != other.protocol_sha256
    assert (one.model.sha256 == other.model.sha256) is same_subject
    assert one.model.name != other.model.name


def forged(store: RunStore, folder, **changes) -> list[str]:
    """What a check says of the same record with other values in its first certified row."""
    copy = RunStore.create(folder, store.manifest)
    copy.write_shard("clean", store.read_step("clean"))
    rows = store.read_step("smoothing")
    row = rows.index[rows["verdict"].isin(["certified"])][0]
    for name, value in changes.items():
        rows.loc[row, name] = value
    copy.write_shard("smoothing", rows)
    copy.write_summary()
    return copy.verify_bytes()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"radius": 0.7}, "its radius is more than its votes prove"),
        ({"votes": 301}, "more votes than draws"),
        ({"votes": 100}, "its radius is more than its votes prove"),
        ({"prediction": pd.NA}, "a radius, but the prediction is not the label"),
        ({"radius": np.nan}, "certified, but its radius is not beyond eps"),
        ({"verdict": pd.NA}, "a radius beyond eps, but not certified"),
        ({"forwards": 5}, "another number of passes than the protocol has"),
    ],
)
def test_a_forged_row_is_found(smooth, tmp_path, changes, problem):
    store = smooth().store
    assert forged(store, tmp_path / "same") == []
    found = forged(store, tmp_path / "forged", **changes)
    assert any(problem in line for line in found), found


def votes_of(*counts: list[int]) -> Votes:
    array = np.array(counts, dtype=np.int64)
    return Votes(array, np.zeros(len(array), dtype=np.int64))


def test_selection_ties_count_against_the_label():
    votes = votes_of([5, 5, 0], [5, 4, 1], [4, 5, 1], [0, 0, 0])
    y = torch.zeros(4, dtype=torch.int64)
    rows = selection_rows(y, torch.arange(4), votes, 10)
    assert rows["verdict"].fillna("").tolist() == ["wrong", "", "wrong", "error"]
    assert rows["prediction"].fillna(-1).tolist() == [1, 0, 1, -1]
    assert rows["margin"].fillna(9).tolist() == pytest.approx([0.0, 0.1, -0.1, 9])
    assert rows["detail"].iloc[3].startswith("no draw")


def test_only_the_label_gets_a_radius():
    votes = votes_of([300, 0, 0], [0, 300, 0], [150, 150, 0], [130, 20, 20], [0, 0, 0])
    y = torch.zeros(5, dtype=torch.int64)
    rows = estimation_rows(y, torch.arange(5), votes, CONFIG, 0.0)
    assert rows["prediction"].fillna(-1).tolist() == [0, 1, -1, 0, -1]
    assert rows["radius"].notna().tolist() == [True, False, False, False, False]
    assert rows["verdict"].notna().tolist() == [True, False, False, False, False]
    assert rows["radius"].iloc[0] == CONFIG.largest_radius


class Blind(nn.Module):
    """Sees clean inputs only: outside of the box its logits are `outside`."""

    def __init__(self, outside: float) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)
        self.outside = outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        strange = ((x < 0) | (x > 1)).flatten(1).any(1)
        return torch.where(strange[:, None], self.outside, self.linear(x))


@pytest.mark.parametrize("outside", [0.0, torch.nan])
def test_a_model_without_an_answer_is_an_error_and_never_right(outside, data, tmp_path):
    run = smoothing.smooth(
        Blind(outside).eval(), data, SmoothingConfig(5.0, n0=5, n=20), out=tmp_path
    )
    assert run.summary.counts.error == 60
    assert run.store.verify_bytes() == []
    assert read_result(run.store).failed.k == 60


def test_radius_out_of_reach_is_refused_before_any_work(smooth, tmp_path):
    with pytest.raises(SmoothingError, match=r"beyond 1 at sigma 0\.2 .* at least \d+ are needed"):
        smooth(eps=1.0)
    assert not (tmp_path / "runs").exists()

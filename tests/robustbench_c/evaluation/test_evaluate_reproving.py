"""Whoever forges a certificate is found out when it is proved again."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from toy_certifiers import LinearCertifier

from leaderboards.store import RunStore
from robustbench_c.data import from_tensors
from robustbench_c.evaluation import proving
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.verify import verify


@pytest.fixture
def run(linear, tmp_path):
    config = CertifyConfig("cascade", radius=True)
    return linear.evaluate(
        tmp_path, eps=0.02, certify=config, certifier=LinearCertifier.make, save_adversarial=True
    )


@pytest.fixture
def check(linear, run):
    data = from_tensors(linear.x, linear.y)

    def again(prove=True):
        store = RunStore.open(run.folder)
        return verify(store, linear.model, data, prove=prove, certifier=LinearCertifier.make)

    return again


@pytest.fixture(autouse=True)
def _one_shard(monkeypatch):
    monkeypatch.setattr(proving, "_GROUPS", 1)


def edit_rows(run, step, change):
    """Edit a shard as somebody would who knows its format, and mend the summary after it."""
    path = run.store.shard_paths(step)[0]
    table = pq.read_table(path)
    frame = table.to_pandas()
    change(frame)
    edited = type(table).from_pandas(frame, schema=table.schema, preserve_index=False)
    pq.write_table(edited, path)
    RunStore.open(run.folder).write_summary()


def test_a_good_run_passes(run, check):
    result = check()
    assert result.problems == ()
    table = run.store.read_step("radius")
    assert result.proved == result.certified
    assert result.certified == run.summary.counts.certified + (table["radius"] > 0).sum() > 60
    assert result.replayed == result.broken == run.summary.counts.broken
    assert check(prove=False).proved == 0


def test_an_open_sample_called_certified_is_found(linear, tmp_path):
    config, data = CertifyConfig("crown"), from_tensors(linear.x, linear.y)
    run = linear.evaluate(tmp_path, eps=0.02, certify=config, certifier=LinearCertifier.make)
    open_ids = run.verdicts.index[run.verdicts["verdict"] == "undecided"]

    def forge(frame):
        row = frame.index[frame["sample_id"] == open_ids[0]][0]
        frame.loc[row, ["verdict", "detail", "bound"]] = ["certified", None, 0.5]

    edit_rows(run, "crown", forge)
    assert RunStore.open(run.folder).verify_bytes() == []
    result = verify(
        RunStore.open(run.folder), linear.model, data, prove=True, certifier=LinearCertifier.make
    )
    assert result.problems == (
        f"step crown, sample {open_ids[0]}: certified, but it cannot be proved again",
    )
    assert result.proved == result.certified - 1


def test_a_bound_that_was_raised_is_found(run, check):
    def raise_it(frame):
        frame.loc[frame.index[frame["verdict"] == "certified"][0], "bound"] += 1.0

    edit_rows(run, "crown", raise_it)
    assert check(prove=False).problems == ()
    assert any("higher than the one that is proved" in line for line in check().problems)


def test_a_radius_that_was_raised_is_found(run, check):
    def raise_it(frame):
        frame.loc[frame["radius"].idxmax(), "radius"] *= 1.1

    edit_rows(run, "radius", raise_it)
    assert check(prove=False).problems == ()
    assert any("its radius cannot be proved again" in line for line in check().problems)


def test_another_method_is_found(run, check):
    def rename(frame):
        frame.loc[frame["verdict"] == "certified", "method"] = "complete"

    edit_rows(run, "ibp", rename)
    assert any("another method" in line for line in check().problems)

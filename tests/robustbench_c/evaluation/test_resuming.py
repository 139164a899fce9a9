"""A run that is named to go on with: that very one, or a line on what differs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attacks.pgd import PGDConfig
from leaderboards.errors import RecordError
from robustbench_c.errors import RunError

PGD = PGDConfig(steps=10, restarts=2, loss="margin", goal="multi-targeted")


def test_it_goes_on_where_it_lies(linear, small_shards, tmp_path, hashes):
    whole = linear.evaluate(tmp_path / "whole")

    def stop(step, done, total, broken):
        if done > 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        linear.evaluate(tmp_path / "runs", progress=stop)
    moved = (tmp_path / "runs" / whole.folder.name).rename(tmp_path / "moved")
    run = linear.evaluate(tmp_path / "not here", resume=moved)
    assert (run.folder, run.resumed, run.summary.complete) == (moved, True, True)
    assert hashes(run) == hashes(whole)
    assert not (tmp_path / "not here").exists()


def test_another_run_is_refused(linear, tmp_path):
    run = linear.evaluate(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = linear.with_model(torch.nn.Linear(12, 3).eval())
    fewer = replace(linear, x=linear.x[:40], y=linear.y[:40])
    a_hash = r"[0-9a-f]{12}\.\.\."
    for problem, options, words in (
        (linear, {"eps": 0.1}, r"protocol\.threat\.eps 0\.05 on record, 0\.1 asked"),
        (
            linear,
            {"attack": replace(PGD, steps=20)},
            r"is another run: protocol\.steps\.pgd\.parameters\.steps 10 on record, 20 asked$",
        ),
        (linear, {"seed": 4}, r"is another run: seed 0 on record, 4 asked$"),
        (other, {}, rf": model\.sha256 {a_hash} on record, {a_hash} asked$"),
        (fewer, {}, r"data\.ids 0-59 on record, 0-39 asked$"),
    ):
        with pytest.raises(RunError, match=words) as refused:
            problem.evaluate(tmp_path / "other", resume=run.folder, **options)
        assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_no_run_is_refused(linear, tmp_path):
    with pytest.raises(RecordError, match=r"is not a run: it has no manifest\.json"):
        linear.evaluate(tmp_path / "runs", resume=tmp_path)
    assert not list(tmp_path.iterdir())

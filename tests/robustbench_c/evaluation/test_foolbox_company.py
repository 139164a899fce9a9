"""Attacks of foolbox whose verdicts hang on company: that is fixed, and the record says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attacks.foolbox_config import FoolboxConfig
from robustbench_c.data import from_tensors
from robustbench_c.evaluation import sharing
from robustbench_c.evaluation.verify import verify

pytest.importorskip("foolbox")
HOP = FoolboxConfig("HopSkipJumpAttack", {"steps": 2, "max_gradient_eval_steps": 40})
STEP = "foolbox-hop-skip-jump"


def test_neither_clock_nor_order_nor_resume_changes_a_verdict(
    linear, tmp_path, monkeypatch, hashes
):
    first = linear.evaluate(tmp_path / "first", attack=HOP)
    monkeypatch.setattr(sharing, "_OPERATIONS", 1.0)
    data = from_tensors(linear.x, linear.y)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = replace(linear, x=data.subset(order), y=None)
    other = shuffled.evaluate(tmp_path / "other", attack=HOP, batch_size=32)
    assert hashes(first)[STEP] == hashes(other)[STEP]
    shards = sorted((first.folder / "shards" / STEP).iterdir())
    assert len(shards) == 2
    for shard in shards:
        shard.unlink()
        again = linear.evaluate(tmp_path / "first", attack=HOP)
        assert (again.resumed, hashes(again)) == (True, hashes(first))


def test_the_record_says_that_it_hangs_on_company(linear, tmp_path):
    run = linear.evaluate(tmp_path, attack=HOP)
    manifest = run.store.manifest
    assert not manifest.reproducible
    assert sum("HopSkipJumpAttack lets samples" in line for line in manifest.notices) == 1
    assert verify(run.store, linear.model, from_tensors(linear.x, linear.y)).problems == ()
    alone = linear.evaluate(tmp_path, attack=FoolboxConfig("LinfPGD", {"steps": 5}))
    assert alone.store.manifest.reproducible
    assert not any("foolbox" in line for line in alone.store.manifest.notices)


def test_an_older_record_stays_as_it_is(linear, tmp_path):
    run = linear.evaluate(tmp_path, attack=HOP)
    path = run.folder / "manifest.json"
    path.write_text(path.read_text().replace('"reproducible": false', '"reproducible": true'))
    again = linear.evaluate(tmp_path, attack=HOP)
    assert (again.resumed, again.store.manifest.reproducible) == (True, True)
    assert verify(again.store, linear.model, from_tensors(linear.x, linear.y)).problems == ()

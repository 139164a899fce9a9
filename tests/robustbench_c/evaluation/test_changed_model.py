"""A model's file that changes while a run works on it."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

import robustbench_c
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from robustbench_c import data as datasets
from robustbench_c import zoo
from robustbench_c.errors import ModelError
from robustbench_c.zoo.cards import WEIGHTS
from robustbench_c.zoo.sources import SourceFile, stamp

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.fixture
def own(tmp_path):
    """A copy of a shipped model."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS / f"breast-cancer-mlp{suffix}", tmp_path / f"own{suffix}")
    return tmp_path / "own.safetensors"


def evaluate(model, out, **options):
    data = datasets.load("breast-cancer", split="test").head(28)
    threat = ThreatModel("linf", 0.02, data.lower, data.upper)
    attack = PGDConfig(steps=4, restarts=1)
    return robustbench_c.evaluate(
        zoo.load(str(model)), data, threat=threat, attack=attack, device="cpu", out=out,
        diagnose=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize(("file", "at"), [("own.safetensors", 7), ("own.json", 26)])
def test_it_is_refused_and_what_is_finished_is_kept(own, tmp_path, hashes, file, at):
    whole, path = evaluate(own, tmp_path / "whole"), own.with_name(file)
    content = path.read_bytes()

    def change(step, done, total, broken):
        if done >= at:
            path.write_bytes(content + b" ")

    with pytest.raises(ModelError, match=f"{file} changed while a run was at work on it: put"):
        evaluate(own, tmp_path / "runs", progress=change)
    (folder,) = (tmp_path / "runs").iterdir()
    kept = {shard: shard.read_bytes() for shard in folder.rglob("shards/pgd/*")}
    assert len(kept) == (1 if at == 7 else 4)
    assert not (folder / "summary.json").exists()
    assert not list(folder.rglob("*.lease"))
    path.write_bytes(content)
    run = evaluate(own, tmp_path / "runs")
    assert run.resumed
    assert hashes(run) == hashes(whole)
    assert {path: path.read_bytes() for path in kept} == kept


def test_the_same_content_is_no_change(own, tmp_path):
    def touch(step, done, total, broken):
        shutil.copy(own, tmp_path / "copy")
        (tmp_path / "copy").rename(own)  # another inode, another time
        own.with_suffix(".json").unlink(missing_ok=True)  # gone: nothing says something else

    assert evaluate(own, tmp_path / "runs", progress=touch).summary.complete


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    before = stamp(path)
    path.write_bytes(b"two three")
    with pytest.raises(ModelError, match="changed while it was read"):
        SourceFile(path, before)


def test_what_a_model_is_read_from(own, tmp_path, monkeypatch):
    assert [source.path for source in zoo.load(str(own)).sources] == [own, own.with_suffix(".json")]
    module = zoo.load("breast-cancer-mlp").module
    torch.save(module.model.state_dict(), tmp_path / "plain.pt")
    loaded = zoo.load(
        str(tmp_path / "plain.pt"), arch="mlp", arch_args={"widths": [32, 32]},
        input_shape=(30,), n_classes=2,
    )  # fmt: skip
    assert [source.path.name for source in loaded.sources] == ["plain.pt"]
    code = tmp_path / "made.py"
    code.write_text("from torch import nn\ndef make():\n    return nn.Linear(3, 2)\n")
    loaded = zoo.load(f"{code}:make", trust_checkpoint=True)
    assert [source.path for source in loaded.sources] == [code]
    assert not loaded.sources[0].changed()
    os.utime(code, (1, 1))
    assert not loaded.sources[0].changed()
    code.write_text("import this\n")
    assert loaded.sources[0].changed()

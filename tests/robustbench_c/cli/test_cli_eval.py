"""`robust-eval` as a stranger meets it: data of one's own, tables, JSON, notices."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from leaderboards.listing import list_runs
from leaderboards.summary import Summary


@pytest.fixture
def only_run(tmp_path):
    """The one run on disk, which has to be sound."""

    def look():
        (listed,) = list_runs(tmp_path / "runs")
        assert listed.problem is None
        return listed

    return look


def test_table_has_intervals_and_says_where_the_record_is(robust_eval, only_run):
    ended = robust_eval(
        "--model", "fmnist-cnn-standard", "--eps", 0.01, "--samples", 40, "--steps", 5
    )
    assert ended.code == 0, ended.err
    run = only_run()
    first, *lines = ended.out.splitlines()
    assert first == "fmnist-cnn-standard on fashion-mnist-mini, linf eps 0.01"
    assert re.search(r"clean +│ +\d+\.\d\d% │ \[\d+\.\d\d%, \d+\.\d\d%\] +│ \d+ of 40", ended.out)
    assert "robust (pgd-5x5, step 0.0025, ce)" in ended.out
    rate = run.summary.robust_accuracy
    assert f"{rate.value:.2%} │ [{rate.lower:.2%}, {rate.upper:.2%}]" in ended.out
    assert lines[-1] == f"record: {run.folder}"
    assert re.search(r"forward and \d+\.\d backward passes per sample, \d+\.\d s in all", ended.out)
    # plain lines where stderr is no terminal
    assert ended.lines[0].startswith("pgd: 0/")
    assert re.fullmatch(r"pgd: (\d+)/\1 done, \d+ broken, .*peak \d+ MB", ended.lines[-1])
    assert "\x1b" not in ended.out + ended.err


def test_json_is_all_there_is_on_stdout(robust_eval, only_run):
    arguments = ("--model", "breast-cancer-mlp", "--eps", 0.05, "--eps-unit", "range", "--json")
    ended = robust_eval(*arguments)
    summary = Summary.model_validate_json(ended.out)
    assert summary == only_run().summary
    assert json.loads(ended.out)["samples"] == 142
    assert robust_eval(*arguments).out == ended.out  # and for the run that is there


def test_default_is_the_card(robust_eval, only_run):
    """Data, norm and radius; the full set stands for the part that is in the package."""
    ended = robust_eval("--model", "fmnist-cnn-pgd", "--samples", 16)
    assert ended.code == 0, ended.err
    manifest = only_run().manifest
    assert manifest.data.name == "fashion-mnist-mini"
    assert (manifest.protocol.threat.norm, manifest.protocol.threat.eps) == ("linf", 0.1)
    assert manifest.model.card["name"] == "fmnist-cnn-pgd"


def test_tabular_with_immutable_features(robust_eval, robust_runs, only_run):
    arguments = ("--model", "breast-cancer-mlp", "--eps", 0.05, "--eps-unit", "range")
    fixed = "mean radius, worst area,7"
    ended = robust_eval(*arguments, "--immutable", fixed, "--save-adversarial", "--steps", 20)
    assert ended.code == 0, ended.err
    assert "linf eps 0.05 of each feature's range" in ended.out
    run = only_run()
    threat = run.manifest.protocol.threat
    assert (threat.eps_unit, threat.immutable) == ("range", "0,7,23")
    assert run.summary.counts.broken > 10

    from leaderboards.store import RunStore
    from robustbench_c.data import load
    from robustbench_c.evaluation import artefacts

    data = load("breast-cancer")
    (stored,) = artefacts.read(RunStore.open(run.folder), "pgd")
    change = (stored.adversarial.double() - stored.clean.double()).abs()
    assert change[:, [0, 7, 23]].max() == 0
    share = change / (data.upper - data.lower)
    assert 0.049 < share.max() <= 0.05
    assert change.max() > 1  # some features are far larger than others

    ended = robust_runs("verify", run.folder)
    assert ended.code == 0, ended.err
    assert f"replayed {run.summary.counts.broken} of {run.summary.counts.broken}" in ended.out


@pytest.mark.parametrize("kind", ["npz", "csv", "folder"])
def test_data_and_model_of_ones_own(robust_eval, robust_runs, factories, own, only_run, kind):
    source = ("--model", f"{factories}:means", "--data", own[kind], "--trust-checkpoint")
    box = () if kind == "folder" else ("--box", "0,1")
    ended = robust_eval(*source, *box, "--eps", 0.1, "--save-adversarial", "--steps", 10)
    assert ended.code == 0, ended.err
    run = only_run()
    # the model looks at the mean alone: within 0.1 of one half it is broken
    gap = np.abs(np.load(own["npz"])["x"].reshape(24, -1).mean(1) / 255 - 0.5)
    near = int((gap < 0.1).sum())
    assert np.abs(gap - 0.1).min() > 1e-4
    assert 5 < near < 20
    assert (run.summary.clean_accuracy.k, run.summary.counts.broken) == (24, near)
    assert run.manifest.model.name == "models.py:means"
    names = ("dark", "light") if kind == "folder" else ("0", "1")
    assert run.manifest.data.classes == names
    ended = robust_runs("verify", run.folder, *source, *box)
    assert ended.code == 0, ended.err
    assert f"replayed {near} of {near}" in ended.out


def test_more_outputs_than_unnamed_classes(robust_eval, factories, own, only_run):
    """An .npz without class names does not say how many there are."""
    ended = robust_eval(
        *("--model", f"{factories}:means", "--arch-args", '{"classes": 5}', "--trust-checkpoint"),
        *("--data", own["npz"], "--eps", 0.1),
    )
    assert ended.code == 0, ended.err
    assert only_run().manifest.data.classes == ("0", "1", "2", "3", "4")


def test_card_knows_more_classes_than_the_data_show(robust_eval, tmp_path, only_run):
    x = np.random.RandomState(0).randint(0, 256, (9, 1, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "few.npz", x=x, y=np.arange(9) % 3)
    ended = robust_eval(
        "--model", "fmnist-cnn-standard", "--data", tmp_path / "few.npz", "--eps", 0.01
    )
    assert ended.code == 0, ended.err
    assert len(only_run().manifest.data.classes) == 10


def test_near_chance_draws_one_line(robust_eval, robust_runs, factories, own, tmp_path, only_run):
    held = dict(np.load(own["npz"]))
    np.savez(own["npz"], x=held["x"], y=np.arange(24) % 2)
    ended = robust_eval(
        "--model", f"{factories}:means", "--trust-checkpoint", "--data", own["npz"], "--eps", 0
    )
    assert ended.code == 0
    notices = [line for line in ended.lines if line.startswith("notice: ")]
    assert "in training mode" in notices[0]  # a factory that forgot model.eval()
    notice = notices[1]
    assert "is near chance (50.0%): is a normalisation missing" in notice
    assert len(notice) > 80  # not broken where stderr is no terminal
    assert notice in robust_runs("status", only_run().folder).out


def test_good_model_draws_no_notice_on_few_samples(robust_eval):
    ended = robust_eval("--model", "breast-cancer-mlp", "--eps", 0, "--samples", 5)
    assert ended.code == 0
    assert "notice" not in ended.err


def test_checkpoint_with_notices(robust_eval, checkpoint, weights):
    path = checkpoint({"state_dict": {f"module.{k}": v for k, v in weights.items()}})
    arguments = ("--model", path, "--arch", "cnn-small", "--data", "fashion-mnist-mini")
    ended = robust_eval(*arguments, "--eps", 0.1, "--samples", 8)
    assert ended.code == 0, ended.err
    assert "notice: state dict found under 'state_dict'" in ended.err
    assert "notice: stripped prefix 'module.'" in ended.err


def test_file_with_its_card_beside_needs_no_data(robust_eval, tmp_path, only_run):
    from robustbench_c.zoo.cards import WEIGHTS

    for suffix in (".json", ".safetensors"):
        content = (WEIGHTS / f"fmnist-cnn-pgd{suffix}").read_bytes()
        (tmp_path / f"fmnist-cnn-pgd{suffix}").write_bytes(content)
    ended = robust_eval("--model", tmp_path / "fmnist-cnn-pgd.safetensors", "--samples", 8)
    assert ended.code == 0, ended.err
    assert only_run().manifest.protocol.threat.eps == 0.1


def test_huge_eps_breaks_everything_and_stays_in_the_box(robust_eval, robust_runs, only_run):
    ended = robust_eval(
        *("--model", "fmnist-cnn-standard", "--eps", 1e9, "--samples", 16, "--save-adversarial")
    )
    assert ended.code == 0, ended.err
    counts = only_run().summary.counts
    assert counts.broken + counts.wrong == 16
    assert robust_runs("verify", only_run().folder).code == 0


def test_large_step_size(robust_eval):
    arguments = ("--model", "fmnist-cnn-standard", "--eps", 0.1, "--samples", 8)
    assert robust_eval(*arguments, "--step-size", 1e30).code == 0


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_other_norms_and_losses(robust_eval, only_run, norm, loss):
    ended = robust_eval(
        *("--model", "fmnist-cnn-standard", "--norm", norm, "--eps", 1.5, "--samples", 16),
        *("--loss", loss, "--goal", "multi-targeted"),
    )
    assert ended.code == 0, ended.err
    assert f"{loss}, multi-targeted)" in ended.out
    assert only_run().summary.counts.error == 0


def test_list_and_version(robust_eval, tmp_path):
    ended = robust_eval("--list")
    assert ended.code == 0
    for word in ("fmnist-cnn-pgd", "breast-cancer-mlp", "fashion-mnist-mini", "pgd"):
        assert word in ended.out
    ended = robust_eval("--version")
    assert ended.out.startswith("robustbench-c 0.")
    assert f"torch {torch.__version__}" in ended.out
    assert not (tmp_path / "runs").exists()


def test_pictures(command, tmp_path):
    """Drawn once, from samples that broke; an unfinished run that is gone on with has them too."""
    arguments = ("--model", "fmnist-cnn-standard", "--eps", 0.1, "--samples", 8, "--out", tmp_path)
    ended = command("robust-eval", *arguments, "--steps", 3, "--device", "cpu")
    (folder,) = tmp_path.iterdir()
    assert ended.out.splitlines()[-1] == f"pictures: {folder / 'contact-sheet.png'}"
    assert (folder / "contact-sheet.png").read_bytes().startswith(b"\x89PNG")
    drawing = (folder / "contact-sheet.svg").read_text()
    assert drawing.count("<image") >= 9
    for forbidden in ("<script", str(tmp_path), "dc:date"):
        assert forbidden not in drawing

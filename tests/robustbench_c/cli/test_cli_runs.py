"""`robust-runs` on runs that are good, empty, foreign and damaged."""

from __future__ import annotations

import json
import shutil

import pytest

MODEL = ("--model", "breast-cancer-mlp", "--eps", 0.05, "--eps-unit", "range", "--steps", 10)


@pytest.fixture
def run(robust_eval, tmp_path):
    assert robust_eval(*MODEL, "--save-adversarial").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


@pytest.fixture
def refused(robust_runs):
    def check(code: int, words: str, *arguments: object) -> None:
        ended = robust_runs(*arguments)
        assert len(ended.lines) == 1, ended.err
        assert ended.lines[0].startswith("robust-runs: error: ")
        assert words in ended.err
        assert ended.code == code

    return check


def test_good_run(robust_runs, run):
    ended = robust_runs("ls", run.parent)
    assert ended.code == 0
    assert run.name in ended.out
    assert "complete  142" in ended.out
    ended = robust_runs("status", run)
    assert "robust (pgd-10x5, step 0.0125, ce)" in ended.out
    ended = robust_runs("verify", run)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("everything that was checked holds\n")


def test_run_without_examples(robust_eval, robust_runs, tmp_path):
    assert robust_eval(*MODEL).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    ended = robust_runs("verify", folder)
    assert ended.code == 0
    assert "were not stored, so they were not replayed" in ended.out
    assert "--save-adversarial" in ended.out


def test_unfinished_run(robust_runs, run):
    for path in (run / "shards" / "pgd").iterdir():
        path.unlink()
    (run / "summary.json").unlink()
    assert "unfinished" in robust_runs("ls", run.parent).out
    ended = robust_runs("status", run)
    assert ended.code == 0
    assert "139 not run" in ended.out
    assert "│        -" in ended.out  # no robust accuracy yet
    assert robust_runs("verify", run).code == 0


def test_edited_summary(refused, robust_runs, run):
    summary = json.loads((run / "summary.json").read_text())
    summary["counts"]["broken"] = 0
    (run / "summary.json").write_text(json.dumps(summary))
    refused(7, "not what the shards give", "verify", run)
    assert "problem: " in robust_runs("verify", run).out


def test_another_model_and_other_data(refused, run):
    refused(4, "takes samples of shape", "verify", run, "--model", "fmnist-cnn-standard")
    refused(4, "takes samples of shape", "verify", run, "--data", "digits")


def test_another_model_of_the_same_shape(refused, robust_eval, tmp_path):
    arguments = ("--model", "fmnist-cnn-standard", "--eps", 0.1, "--samples", 8)
    assert robust_eval(*arguments).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    refused(3, "give the model that was evaluated", "verify", folder, "--model", "fmnist-cnn-pgd")


def test_model_and_data_of_ones_own_are_asked_for(refused, robust_eval, factories, own, tmp_path):
    source = ("--model", f"{factories}:means", "--data", own["npz"], "--trust-checkpoint")
    assert robust_eval(*source, "--eps", 0.1).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    refused(2, "'models.py:means' is not in the zoo", "verify", folder)
    refused(2, "'own' is not a known set", "verify", folder, *source[:2])
    refused(3, "--trust-checkpoint", "verify", folder, *source[:4])


def test_nothing_there(refused, robust_runs, tmp_path):
    ended = robust_runs("ls", tmp_path)
    assert (ended.code, ended.out) == (0, f"no runs in {tmp_path}\n")
    refused(6, "no such folder", "ls", tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    refused(6, "no such folder", "ls", tmp_path / "file")
    for verb, words in (("status", "is neither a run nor"), ("verify", "is not a run")):
        refused(6, words, verb, tmp_path)
        refused(6, words, verb, tmp_path / "nowhere")
    refused(2, "give a command", *())
    refused(2, "No such command 'lst'", "lst")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": 99}', b"null", b"[" * 10000]
)
def test_foreign_folder(refused, robust_runs, tmp_path, content):
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(content)
    for verb in ("status", "verify"):
        refused(6, "manifest.json", verb, folder)
    ended = robust_runs("ls", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert "stranger" in ended.out


@pytest.mark.parametrize("name", ["[red]x", "[bold]", ":smile:", "a\x1b[31mb"])
def test_names_are_shown_as_they_are(robust_runs, run, name):
    shutil.copytree(run, run.parent / name)
    ended = robust_runs("ls", run.parent)
    assert (ended.code, ended.err) == (0, "")
    assert name.replace("\x1b", " ") in ended.out
    ended = robust_runs("verify", run.parent / name)
    assert ended.code == 0, ended.err


def test_damaged_shard(refused, robust_runs, run):
    shard = min((run / "shards" / "pgd").iterdir())
    shard.write_bytes(shard.read_bytes()[:-50])
    refused(6, "not a whole Parquet file", "status", run)
    refused(7, "not a whole Parquet file", "verify", run)
    ended = robust_runs("ls", run.parent)
    assert ended.code == 0
    assert "not a whole Parquet file" in " ".join(ended.out.split())


def test_damaged_examples(refused, run):
    (path,) = (run / "adversarial" / "pgd").iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    refused(7, "is damaged", "verify", run)


def test_shown_attack_of_another_tool(robust_runs, run):
    """A record need not have the parameters of our own attack."""
    from leaderboards.store import RunStore
    from robustbench_c.cli.attack_tables import attack_words

    step = RunStore.open(run).manifest.protocol.steps[0]
    assert attack_words(step) == "pgd-10x5, step 0.0125, ce"
    assert attack_words(step.model_copy(update={"parameters": {}})) == "pgd"
    odd = {"steps": "a", "restarts": None, "step_size": "\x1b[2J", "loss": True}
    assert attack_words(step.model_copy(update={"parameters": odd})) == "pgd-axNone, step [2J, True"

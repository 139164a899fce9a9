"""Bad input that takes more than a table (see bad_inputs/): models, a full disk, an interrupt."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_c import zoo

STANDARD = ("--model", "fmnist-cnn-standard", "--norm", "linf", "--eps", 0.1, "--samples", 8)
USAGE, MODEL, DATA, ATTACK, RECORD = 2, 3, 4, 5, 6


@pytest.fixture
def refused(robust_eval, tmp_path):
    """Run what must fail; check how it fails."""

    def check(code: int, words: str, *arguments: object) -> str:
        ended = robust_eval(*arguments)
        assert ended.out == ""
        assert len(ended.lines) == 1, ended.err
        assert ended.lines[0].startswith("robust-eval: error: ")
        assert "Traceback" not in ended.err
        assert words in ended.err
        assert ended.code == code
        assert not (tmp_path / "runs").exists()
        return ended.lines[0]

    return check


def test_wrong_number_of_classes(refused, tmp_path):
    x = np.random.RandomState(0).rand(5, 1, 28, 28).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(5), classes=np.array(["a", "b", "c", "d", "e"]))
    np.savez(tmp_path / "b.npz", x=x, y=np.array([0, 1, 2, 3, 57]))
    words = "the model has 10 classes, but a has 5"
    refused(DATA, words, *STANDARD[:-2], "--data", tmp_path / "a.npz")
    words = "the model has 10 classes, but sample 4 of b has the label 57"
    refused(DATA, words, *STANDARD[:-2], "--data", tmp_path / "b.npz")


class TestCheckpoint:
    OPTIONS = ("--data", "fashion-mnist-mini", "--eps", 0.1, "--samples", 8)

    @pytest.fixture
    def refused(self, refused):
        return lambda words, path, *more: refused(
            MODEL, words, "--model", path, *self.OPTIONS, *(more or ("--arch", "cnn-small"))
        )

    def test_without_an_architecture(self, refused, checkpoint, weights):
        words = "name its architecture with --arch"
        assert "its shapes fit cnn-small" in refused(words, checkpoint(weights), "--seed", 0)

    def test_missing_extra_and_misshapen(self, refused, checkpoint, weights):
        first, *_, last = weights
        refused(f"missing: {last}", checkpoint({k: v for k, v in weights.items() if k != last}))
        refused("unexpected: more", checkpoint(weights | {"more": torch.zeros(2)}))
        refused(
            f"of the wrong shape: {first}", checkpoint(weights | {first: weights[first][..., :2]})
        )

    def test_nan_and_inf(self, refused, checkpoint, weights):
        first = next(iter(weights))
        for value in (torch.nan, torch.inf):
            weights[first].view(-1)[0] = value
            refused("NaN or Inf", checkpoint(weights))

    def test_pickle_that_needs_code(self, refused, checkpoint, tmp_path):
        path = checkpoint({"state_dict": os.system})
        refused("--trust-checkpoint", path)
        path = checkpoint(torch.nn.Linear(2, 2))
        refused("--trust-checkpoint", path)

    def test_factory_that_is_not_trusted(self, refused, factories):
        refused("--trust-checkpoint", f"{factories}:means", "--seed", 0)

    @pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
    def test_damaged(self, refused, tmp_path, name, checkpoint, weights):
        import safetensors.torch

        path = checkpoint(weights, name)
        if name.endswith("safetensors"):
            safetensors.torch.save_file(weights, path)
        whole = path.read_bytes()
        for content in (
            b"",
            b"\0" * 4096,
            b"<html>404</html>",
            whole[:-100],
            whole[: len(whole) // 2],
        ):
            path.write_bytes(content)
            refused("", path)

    def test_folder_and_strange_suffix(self, refused, tmp_path):
        refused("is a folder", tmp_path)
        (tmp_path / "model.h5").write_bytes(b"x")
        refused("is no model file", tmp_path / "model.h5")
        (tmp_path / "model.onnx").write_bytes(b"x")
        refused("not an ONNX file", tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("Nan", "logits are NaN or Inf on sample 5"),
        ("Noisy", "the model's output is random (flag random-output)"),
        ("Constant", "no gradient with respect to its input"),
        ("Raises", "cannot evaluate samples of shape (1, 4, 4): expected something"),
        ("Flat", "a classifier returns logits of shape (batch, classes)"),
        ("not_finite", "NaN or Inf"),
        ("fails", "no network"),
        ("number", "returned a int"),
        ("absent", "absent"),
    ],
)
def test_models_that_cannot_be_evaluated(refused, factories, own, factory, words):
    arguments = ("--trust-checkpoint", "--data", own["npz"], "--eps", 0.1)
    refused(MODEL, words, "--model", f"{factories}:{factory}", *arguments)


def test_nan_after_the_probe_names_the_sample(refused, factories, tmp_path):
    """Sample 200 of the set is past those that are looked at first."""
    x = np.full((300, 3), 0.5, np.float32)
    x[200] = 0.98
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(300) % 2)
    arguments = ("--trust-checkpoint", "--data", tmp_path / "d.npz", "--eps", 0.1)
    words = "the model's logits are NaN or Inf on sample 200"
    refused(MODEL, words, "--model", f"{factories}:Nan", *arguments)


def test_disk_full(robust_eval, tmp_path, monkeypatch):
    """At the last write, after everything was computed."""
    assert robust_eval(*STANDARD, "--out", tmp_path / "whole").code == 0
    real = os.fsync

    def full(handle: int) -> None:
        if "summary" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        ended = robust_eval(*STANDARD)
    assert ended.code == RECORD
    assert ended.out == ""
    last = ended.lines[-1]
    assert last.startswith("robust-eval: error: cannot write ")
    assert last.endswith("No space left on device")
    (folder,) = (tmp_path / "runs").iterdir()
    assert not list(folder.glob("*summary*"))
    assert robust_eval(*STANDARD).code == 0
    assert (folder / "summary.json").exists()


def test_interrupt(robust_eval, tmp_path, monkeypatch):
    from robustbench_c.cli.run_progress import RunProgress

    def stop(self, step, done, total, broken):
        if done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "__call__", stop)
        ended = robust_eval(*STANDARD)
    assert ended.code == 130
    assert ended.lines[-1].startswith("robust-eval: stopped; the same command goes on after")
    assert "Traceback" not in ended.err
    ended = robust_eval(*STANDARD)
    assert ended.code == 0
    assert "went on with the record that was there" in ended.out
    assert robust_eval(*STANDARD, "--out", tmp_path / "whole").code == 0
    (resumed,), (whole,) = ((tmp_path / n).iterdir() for n in ("runs", "whole"))
    content = [p.parent.name + "/" + p.name for p in whole.rglob("*.parquet")]
    assert [p.parent.name + "/" + p.name for p in resumed.rglob("*.parquet")] == content


def test_a_flipped_bit_in_a_checkpoint_is_found(robust_eval, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(zoo.build("cnn-small", (1, 28, 28), 10).state_dict(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    ended = robust_eval("--model", path, "--arch", "cnn-small", "--data", "digits", "--eps", 0.1)
    assert ended.code in (3, 2)
    assert "fails its checksum" in ended.err


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--steps is a setting of an attack", ("--attack", "none", "--steps", 7)),
        ("--set is a setting of an attack", ("--attack", "none", "--set", "steps=7")),
        ("--loss is a setting of an attack", ("--attack", "none", "--loss", "ce")),
        ("--max-queries is a limit of attacks", ("--attack", "none", "--max-queries", 7)),
        ("--max-seconds is a limit of attacks", ("--attack", "none", "--max-seconds", 7)),
    ],
)
def test_settings_of_no_attack(refused, words, arguments):
    refused(USAGE, words, *STANDARD, "--certify", "ibp", *arguments)


@pytest.mark.parametrize("limit", [("--max-queries", 0), ("--max-seconds", 0)])
def test_limits_that_are_none(refused, limit):
    refused(USAGE, limit[0], *STANDARD, *limit)


@pytest.mark.parametrize("limit", ["--max-queries", "--max-seconds"])
def test_limits_that_do_not_fit(refused, command, limit):
    refused(USAGE, limit, *STANDARD, "--explain", "gradient", limit, 5)
    given = (*STANDARD[:2], "--protocol", "fmnist-linf-0.1-v1", limit, 5)
    assert f"fixes {limit}" in command("robust-eval", *given).err


@pytest.mark.parametrize(
    "setting", [("--steps", -3), ("--steps", 0), ("--set", "rel_stepsize=-1")], ids=str
)
def test_settings_of_foolbox_that_are_no_numbers_of_anything(refused, setting):
    pytest.importorskip("foolbox")
    refused(ATTACK, "must be", *STANDARD, "--attack", "foolbox:LinfPGD", *setting)

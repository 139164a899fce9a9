"""Sparse recipes by `robust-train`: as sparse as asked, counted, or one line and an exit code."""

from __future__ import annotations

import json

import pytest

from certify.sparse import prunable
from robustbench_c import zoo

TINY = ("--data", "digits", "--arch", "mlp", "--arch-args", '{"widths": [12, 8]}')
TINY += ("--batch-size", 512, "--device", "cpu")
WEIGHTS = 64 * 12 + 12 * 8 + 8 * 10


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    monkeypatch.setattr("robustbench_c.training.loop.draw", lambda *_: None)


@pytest.mark.parametrize(
    "recipe",
    ["sparsevlr", "rigl", "set", "static-sparse", "ac-dc", "cram", "tscnc", "magnitude", "hydra"],
)
def test_one_epoch_of_a_recipe_leaves_the_asked_zeros(command, tmp_path, recipe):
    start: tuple[object, ...] = ()
    if recipe in ("magnitude", "hydra"):
        dense = ("--recipe", "standard", *TINY, "--epochs", 1, "--name", "dense")
        assert command("robust-train", *dense, "--out", tmp_path).code == 0
        start = ("--start", tmp_path / "dense.safetensors")
    out = tmp_path / "out"
    words = ("--recipe", recipe, *TINY, "--epochs", 1, "--sparsity", 0.9, "--name", "thin")
    ended = command("robust-train", *words, *start, "--out", out)
    assert ended.code == 0, ended.err
    assert "  sparse 90.0%  " in ended.err
    zeros = WEIGHTS - round(0.1 * WEIGHTS)
    loaded = zoo.load(str(out / "thin.safetensors"), device="cpu")
    assert sum(int((w == 0).sum()) for w in prunable(loaded.module).values()) == zeros
    assert loaded.card.sparsity.sparsity == zeros / WEIGHTS
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["sparsity"] == zeros / WEIGHTS
    assert (out / "churn.jsonl").exists() == (recipe not in ("cram", "tscnc"))


@pytest.mark.parametrize(("allocation", "empty"), [("global", True), ("erk", False)])
def test_a_layer_without_a_weight_is_told(command, tmp_path, allocation, empty):
    dense = ("--recipe", "standard", *TINY, "--epochs", 1, "--name", "dense", "--out", tmp_path)
    assert command("robust-train", *dense).code == 0
    words = ("--recipe", "magnitude", *TINY, "--epochs", 1, "--name", "thin", "--sparsity", 0.996)
    start = ("--start", tmp_path / "dense.safetensors", "--allocation", allocation)
    ended = command("robust-train", *words, *start, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    weights = prunable(zoo.load(str(tmp_path / "out/thin.safetensors"), device="cpu").module)
    without = [name for name, weight in weights.items() if not weight.any()]
    assert bool(without) is empty
    told = f"notice: pruning left no weight of {', '.join(without)}: "
    assert (told in ended.err) is empty


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("sparsevlr", "--sparsity", 1.5), 2, "'dynamic': setting sparsity: Input should be less"),
        (("sparsevlr", "--sparsity", "nan"), 2, "'dynamic': setting sparsity: Input should be"),
        (("sparsevlr", "--sparsity", 0.9999), 2, "leaves 0 units to 3 layers: each needs one"),
        (
            ("sparsevlr", "--structure", "channel"),
            2,
            "setting structure: Input should be",
        ),
        (("sparsevlr", "--allocation", "erk2"), 2, "setting allocation: Input should be"),
        (("hydra", "--structure", "channels"), 2, "'hydra': setting structure"),
        (("pgd", "--sparsity", 0.9), 2, "recipe 'pgd' trains a dense model and has no sparsity"),
        (("sparsevlr", "--objective", "ipb"), 2, "no recipe 'ipb'; did you mean 'ibp'?"),
        (("rewind", "--epochs", 6), 2, "epochs (6) is no multiple of cycles (4)"),
        (("magnitude",), 2, "its start fmnist-cnn-ibp is a"),
        (("magnitude", "--start", "fmnist-cnn-ipb"), 3, "did you mean 'fmnist-cnn-ibp'"),
        (("magnitude", "--start", "none.safetensors"), 3, "none.safetensors"),
    ],
)
def test_wrong_values_are_one_line_and_leave_nothing(command, tmp_path, words, code, told):
    ended = command(
        "robust-train", "--recipe", words[0], *TINY, *words[1:], "--out", tmp_path / "x"
    )
    assert ended.code == code, ended.err
    assert len(ended.lines) == 1, ended.err
    assert told in ended.err
    assert not (tmp_path / "x").exists()

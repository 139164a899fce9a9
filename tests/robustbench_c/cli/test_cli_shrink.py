"""`robust-shrink`, and what `robust-eval` says of a sparse model."""

from __future__ import annotations

import json

import pytest
import torch


@pytest.fixture
def thin(weights, checkpoint):
    """A checkpoint of cnn-small without half of its neurons, and with few weights."""
    torch.manual_seed(0)
    for name, value in weights.items():
        if name.endswith("weight"):
            value *= torch.rand_like(value) > 0.8
    weights["7.weight"][0] += 0.01  # reads all neurons
    weights["5.weight"][:50] = 0.0
    weights["0.weight"][3] = weights["0.bias"][3] = 0.0
    return checkpoint(weights, "thin.pt")


def test_one_command_makes_a_pruned_checkpoint_smaller(command, robust_eval, thin, tmp_path):
    same = ["--model", thin, "--data", "fashion-mnist-mini", "--arch", "cnn-small"]
    mine = [*same, "--out", tmp_path, "--samples", 50]
    ended = command("robust-shrink", *mine)
    assert ended.code == 0, ended.err
    assert "widths of the layers: 16 32 100 -> 15 32 50\n" in ended.out
    assert "logits of 50 samples differ by rounding" in ended.out
    file = tmp_path / "thin-small.safetensors"
    assert file.stat().st_size < 0.25 * thin.stat().st_size
    assert command("robust-shrink", *mine).code == 2  # it is there already
    assert command("robust-shrink", *mine, "--overwrite").code == 0

    ended = robust_eval("--model", file, "--data", "fashion-mnist-mini", "--samples", 4, "--eps", 0)
    assert ended.code == 0, ended.err
    card = json.loads(file.with_suffix(".json").read_text())
    manifest = json.loads(next(tmp_path.glob("runs/*/manifest.json")).read_text())
    size = manifest["model"]["size"]
    assert size["nonzero_weights"] == card["sparsity"]["nonzero_weights"]
    assert size["macs"] == card["sparsity"]["macs"]
    zeros = card["sparsity"]["sparsity"]
    assert f"sparsity: {zeros:.2%} of {size['weights']:,} weights are 0" in ended.out
    assert f"model: {manifest['model']['parameters']:,} parameters, " in ended.out


def test_a_dense_model_has_no_line_of_sparsity(robust_eval, tmp_path):
    ended = robust_eval("--model", "fmnist-cnn-standard", "--samples", 2, "--eps", 0)
    assert "model: 166,406 parameters, 1.22 MFLOP per sample, 666 kB\n" in ended.out
    assert "sparsity" not in ended.out


def test_what_is_no_network_of_the_zoo_is_refused(command, factories, tmp_path):
    ended = command("robust-shrink", "--model", f"{factories}:means", "--data", "digits")
    assert ended.code == 3
    assert len(ended.lines) == 1
    assert "--trust-checkpoint" not in ended.err, "a network of code has no architecture to name"
    assert command("robust-shrink").code == 2

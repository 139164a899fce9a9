"""`robust-eval --resume RUN` as users meet it."""

from __future__ import annotations

import pytest

SMALL = ("--model", "breast-cancer-mlp", "--samples", 12, "--eps", 0.02, "--steps", 2)
WORDS = (*SMALL, "--restarts", 1, "--device", "cpu", "--no-diagnose")
EXPLAIN = (
    *SMALL, "--explain", "gradient", "--explain-method", "none", "--restarts", 1, "--device", "cpu"
)  # fmt: skip


@pytest.mark.parametrize("words", [WORDS, pytest.param(EXPLAIN, marks=pytest.mark.slow)])
def test_resume_is_of_that_run_alone(command, tmp_path, words):
    assert command("robust-eval", *words, "--out", tmp_path / "runs").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    moved = folder.rename(tmp_path / "moved")
    ended = command("robust-eval", *words, "--resume", moved)
    assert ended.code == 0, ended.err
    assert "went on with the record that was there" in ended.out
    ended = command("robust-eval", *words, "--resume", moved, "--eps", 0.03)
    assert ended.code == 6
    assert ended.lines[-1].startswith(f"robust-eval: error: {moved} is another run: protocol.")
    assert "protocol.threat.eps 0.02 on record, 0.03 asked" in ended.lines[-1]


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ((), 6, "is no run: it has no manifest.json"),
        (("--out", "elsewhere"), 2, "leave out --out"),
        (("--overwrite",), 2, "leave out --overwrite"),
    ],
)
def test_what_cannot_be_gone_on_with(command, tmp_path, given, code, words):
    ended = command("robust-eval", *WORDS, "--resume", tmp_path, *given)
    assert (ended.code, len(ended.lines)) == (code, 1)
    assert words in ended.err
    assert not list(tmp_path.iterdir())

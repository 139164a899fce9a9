"""The command that a page derives from a record makes the same run again."""

from __future__ import annotations

import shlex
import shutil

import pytest

from leaderboards.reproduction import reproduction
from leaderboards.store import RunStore

TABULAR = ("--model", "breast-cancer-mlp", "--eps", 0.05, "--samples", 1)


@pytest.mark.parametrize(
    "asked",
    [
        ("--steps", 3, "--restarts", 2, "--loss", "margin", "--certify", "crown", "--radius"),
        ("--attack", "apgd", "--steps", 3, "--set", "projection=shrink", "--max-queries", 9),
        ("--attack", "nearest", "--minimal", "--steps", 4, "--set", "queries=5"),
        ("--attack", "none", "--certify", "complete", "--certify-subproblems", 7),
        ("--eps-unit", "range", "--certify", "cascade", "--certify-iterations", 2),
    ],
)
def test_the_derived_command_has_the_same_protocol(robust_eval, tmp_path, asked) -> None:
    ended = robust_eval(*TABULAR, *asked)
    assert ended.code == 0, ended.err
    told, first = _derived(tmp_path)
    assert told.whole
    program, *words = shlex.split(told.command)
    assert program == "robust-eval"
    ended = robust_eval(*words)
    assert ended.code == 0, ended.err
    assert _derived(tmp_path)[1] == first


def _derived(tmp_path):
    (run,) = (tmp_path / "runs").iterdir()
    manifest = RunStore.open(run).manifest
    shutil.rmtree(run)
    return reproduction(manifest), manifest.identity()

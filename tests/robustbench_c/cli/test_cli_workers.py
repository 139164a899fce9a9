"""One run by several processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from robustbench_c.cli.workers import start_of
from robustbench_c.errors import UsageError

RUN = "from robustbench_c.cli.{module} import main; main()"
EVAL = ("--model", "breast-cancer-mlp", "--samples", "60", "--eps", "0.02", "--no-diagnose")
FEW = ("--model", "fmnist-cnn-pgd", "--samples", "40")
SEARCH = ("--search", "--families", "shift,noise,blur", "--levels", "3", "--draws", "4")


def test_where_a_worker_begins():
    assert [start_of(shard) for shard in (None, "1/4", "2/4", "4/4")] == [0, 0, 0.25, 0.75]


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "/", "a/b", "1/0", "-1/4", "²/4", "1/4/2"])
def test_what_is_no_shard(shard):
    with pytest.raises(UsageError, match="is not I/N"):
        start_of(shard)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--shard", "3/2"), "--shard 3/2 is not I/N"),
        (("--workers", "2", "--shard", "1/2"), "leave out --workers"),
        (("--workers", "2", "--overwrite"), "--overwrite is for one process"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_wrong_usage(command, tmp_path, given, words):
    for script in ("robust-eval", "robust-corrupt", "robust-smooth"):
        model = ("--model", "breast-cancer-mlp", *(("--smooth", 1) if "smooth" in script else ()))
        ended = command(script, *model, "--out", tmp_path, *given)
        assert ended.code == 2
        assert words in ended.err
        assert not list(tmp_path.iterdir())


# tests/kills has a short form with two processes
@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("evaluate", EVAL),
        ("corrupt", (*FEW, "--severities", "2,5")),
        ("corrupt", (*FEW, *SEARCH)),
        ("smooth", (*FEW, "--smooth", "0.25")),
    ],
    ids=["evaluate", "corrupt", "search", "smooth"],
)
def test_two_processes_make_the_record_of_one(module, options, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / f"robust-{module.removesuffix('uate')}"
    script.write_text(RUN.format(module=module))
    sums = []
    for place, more in (("one", ()), ("two", ("--workers", "2"))):
        words = [sys.executable, script, *options, "--device", "cpu", "--out", tmp_path / place]
        ended = subprocess.run(
            [*words, *more, "--json"], capture_output=True, text=True, check=True
        )
        found = json.loads(ended.stdout)
        found = found.get("summary", found)
        sums.append((found["counts"], [step["content_sha256"] for step in found["steps"]]))
        assert "notice: worker" not in ended.stderr
    assert sums[0] == sums[1]

"""`robust-eval --suite` as users call it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from leaderboards.store import RunStore

SUITE = """
name = "small"
threads = 1
[defaults]
samples = 20
data = "breast-cancer"
[[runs]]
command = "train"
name = "tiny"
recipe = "breast-cancer-mlp"
epochs = 1
[[runs]]
model = ["breast-cancer-mlp", "trained:tiny"]
norm = "linf"
eps = 0.02
eps-unit = "range"
steps = 3
restarts = 1
no-diagnose = true
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return path


def test_a_suite_trains_and_evaluates(command, small, tmp_path):
    out = tmp_path / "runs"
    ended = command("robust-eval", "--suite", small, "--out", out, "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "models/tiny-" in ended.out
    assert ended.out.count("complete") == 2
    jobs = [json.loads(path.read_text()) for path in (out / "jobs").glob("*.json")]
    runs = [out / job["result"] for job in jobs if not job["result"].startswith("models/")]
    assert {RunStore.open(run).manifest.model.name for run in runs} == {
        "tiny",
        "breast-cancer-mlp",
    }
    again = command("robust-eval", "--suite", small, "--out", out, "--device", "cpu")
    assert again.code == 0
    assert again.out == ended.out
    assert again.err == ""  # nothing was left to do
    shown = command("robust-leaderboard", "show", out)
    assert (shown.code, shown.err) == (0, "")
    plan = command("robust-eval", "--suite", small, "--out", out, "--plan")
    assert "3 jobs, 3 of them done" in plan.out
    shard = next(runs[0].glob("shards/pgd/*.parquet"))
    content = shard.read_bytes()
    shard.unlink()
    plan = command("robust-eval", "--suite", small, "--out", out, "--plan", "--device", "cpu")
    assert "3 jobs, 2 of them done" in plan.out
    alone = command(
        *("robust-eval", "--suite", small, "--out", out, "--device", "cpu", "--only", "eval")
    )
    assert alone.code == 0, alone.err
    assert len(shard.read_bytes()) == pytest.approx(len(content), rel=0.1)


def test_jobs_that_fail_are_told(command, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "bad"\n[[runs]]\nmodel = "breast-cancer-mlp"\n'
        'data = ["breast-cancer", "gone.csv"]\n'
        "samples = 5\neps = 0.1\nsteps = 2\nrestarts = 1\nno-diagnose = true\n"
    )
    ended = command("robust-eval", "--suite", path, "--out", tmp_path / "runs", "--device", "cpu")
    assert ended.code == 4
    assert "error: 1 of 2 jobs of the suite bad failed, the first: " in ended.lines[-1]
    assert "gone.csv" in ended.lines[-1]
    assert "complete" in ended.out
    assert "failed: " in ended.out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--suite", "zo"), "did you mean 'zoo'"),
        (("--suite", "zoo", "--eps", "0.1"), "--eps does not go with --suite: leave it out"),
        (("--suite", "zoo", "--model", "x"), "--model does not go with --suite"),
        (("--suite", "zoo", "--only", "nothing"), "no job of the suite 'zoo' has 'nothing'"),
        (("--suite", "zoo", "--executor", "cloud"), "no executor 'cloud'"),
        (("--suite", "zoo", "--executor", "inline", "--workers", "2"), "inline is one worker"),
        (("--suite", "zoo", "--slurm", "mem=8G"), "--slurm is about jobs of a cluster: add"),
        (("--suite", "zoo", "--no-wait"), "--no-wait is about jobs of a cluster"),
        (("--suite", "zoo", "--executor", "slurm", "--slurm", "array=0-7"), "--slurm array: that"),
        (("--suite", "zoo", "--executor", "slurm", "--shard", "1/2"), "leave out --shard"),
        (("--model", "breast-cancer-mlp", "--slurm", "mem=8G"), "--slurm is about suites"),
        (("--suite", "zoo", "--workers", "2", "--shard", "1/2"), "leave out --workers"),
        (("--suite", "zoo", "--shard", "3/2"), "is not I/N"),
        (("--only", "x", "--model", "breast-cancer-mlp"), "--only is about suites: add --suite"),
    ],
)
def test_wrong_usage_of_suites(command, tmp_path, given, words):
    ended = command("robust-eval", *given, "--out", tmp_path / "runs")
    assert ended.code == 2
    assert words in ended.err
    assert len(ended.lines) == 1
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_a_suite(command, small, tmp_path):
    out = tmp_path / "runs"
    ended = command("robust-eval", "--suite", small, "--out", out, "--device", "cpu", "--plan")
    assert ended.code == 0, ended.err
    assert "notice: 'tiny' is not trained, by another job" in ended.err
    assert "suite small: 3 jobs, 0 of them done" in ended.out
    assert "1 more could not be tried" in ended.out
    rows = [line.split() for line in ended.out.splitlines()]
    assert [row[1] for row in rows[1:4]] == ["left"] * 3
    assert rows[1][3] == rows[2][3] == "s"
    assert rows[1][7] in ("MB", "GB")
    assert not out.exists()


@pytest.mark.parametrize(
    "given",
    [
        ("robust-corrupt", "--kinds", "fog"),
        ("robust-smooth", "--smooth", "0.1", "--smooth-n", "100", "--data", "breast-cancer"),
        ("robust-train", "--recipe", "breast-cancer-mlp"),
        ("robust-eval", "--eps", "0.02", "--explain", "gradient"),
    ],
)
def test_the_plan_of_one_command(command, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    script, *more = given
    if script != "robust-train":
        name = "fmnist-cnn-pgd" if script == "robust-corrupt" else "breast-cancer-mlp"
        more += ["--model", name, "--samples", "8"]
    ended = command(script, *more, "--device", "cpu", "--plan")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("would take about ")
    assert "of memory" in ended.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_workers_make_the_runs_of_one(small, tmp_path):
    found = []
    for place, more in (("one", ()), ("two", ("--workers", "2"))):
        out = tmp_path / place
        words = [sys.executable, "-m", "robustbench_c", "robust-eval", "--suite", small]
        words += ["--out", out, "--device", "cpu", *more]
        subprocess.run(words, check=True, capture_output=True)
        runs = sorted(p for p in out.iterdir() if (p / "manifest.json").exists())
        sums = [json.loads((run / "summary.json").read_text())["steps"] for run in runs]
        hashes = [[step["content_sha256"] for step in steps] for steps in sums]
        found.append(([run.name for run in runs], hashes))
    assert found[0] == found[1]

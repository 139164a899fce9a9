"""The commands of the example workflow, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parents[1]
EXAMPLE = HERE / "examples" / "github-actions"
WEIGHTS = HERE / "robustbench_c" / "zoo" / "weights"
WORKFLOW = yaml.safe_load((EXAMPLE / "robustness.yml").read_text())
JOB = WORKFLOW["jobs"]["gate"]
STEPS = {step["name"]: step for step in JOB["steps"] if "run" in step}


@pytest.fixture
def checkout(tmp_path):
    """A repository with the example in it, and our commands and a `gh` that only notes on PATH."""
    (tmp_path / "robustness").mkdir()
    shutil.copy(EXAMPLE / "protocol.toml", tmp_path / "robustness")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    scripts = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["scripts"]
    for name, entry in scripts.items():
        module = entry.removesuffix(":main")
        start = f"import {module} as m; m.main()"
        write_script(bin_folder / name, f'exec "{sys.executable}" -c "{start}" "$@"')
    write_script(bin_folder / "gh", 'echo "$@" >> gh.log')
    return tmp_path


def write_script(path, line):
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def run(checkout, command, **variables):
    """Run a command as the runner does."""
    env = {
        **os.environ,
        **{name: str(value) for name, value in JOB["env"].items()},
        "PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE),
        "GITHUB_STEP_SUMMARY": str(checkout / "summary.md"),
        **variables,
    }
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=checkout,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def page_commands():
    (block,) = re.findall(r"```\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    return [line.strip() for line in block.splitlines() if line.strip().startswith("robust-")]


def after_evaluation(checkout):
    """Run what follows the evaluation; the exit codes of the steps by their names."""
    names = list(STEPS)
    return {
        name: run(checkout, STEPS[name]["run"], NUMBER="7")
        for name in names[names.index("Evaluate") + 1 :]
    }


def test_workflow_has_what_runs_need():
    assert list(STEPS) == ["Install", "Evaluate", "Check", "Summary", "Report", "Comment"]
    assert WORKFLOW["permissions"]["pull-requests"] == "write"
    used = " ".join(step["run"] for step in STEPS.values())
    assert "--trust-checkpoint" not in used
    assert "${{" not in used  # what strangers name their branches never reaches a shell
    assert (
        page_commands()[0].split("robust-eval")[1].replace("model.safetensors", '"$MODEL"')
        == STEPS["Evaluate"]["run"].split("robust-eval")[1]
    )


def test_commands_in_short(checkout, write_run):
    """On small records, without the evaluation."""
    write_run(checkout / "runs" / "main", certified=set(range(40)), samples=40)
    ended = run(checkout, page_commands()[1])
    assert ended.returncode == 0, ended.stderr
    shutil.rmtree(checkout / "runs")
    write_run(checkout / "runs" / "pr", certified=set(range(20)), samples=40)
    steps = after_evaluation(checkout)
    codes = {name: step.returncode for name, step in steps.items()}
    assert codes == {"Check": 1, "Summary": 0, "Report": 0, "Comment": 0}, steps
    assert "**regressed**" in (checkout / "summary.md").read_text()
    assert (checkout / "gh.log").read_text().startswith("pr comment 7 --body-file reports/gate.md")
    made = {path.name for path in (checkout / "reports").iterdir()}
    assert made == {"gate.md", "gate.xml", "gate.json", "report.html", "site"}


@pytest.fixture
def write_run(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE / "tests" / "leaderboards"))
    from run_makers import write_run  # type: ignore[import-not-found]

    return write_run


@pytest.mark.slow
def test_the_whole_workflow(checkout):
    """A baseline of the adversarially trained model; a pull request with the plain one fails."""
    place(checkout, "fmnist-cnn-pgd")
    for command in page_commands():
        ended = run(checkout, command)
        assert ended.returncode == 0, ended.stderr
    steps = after_evaluation(checkout)
    assert {step.returncode for step in steps.values()} == {0}, steps
    place(checkout, "fmnist-cnn-standard")
    shutil.rmtree(checkout / "runs")
    ended = run(checkout, STEPS["Evaluate"]["run"])
    assert ended.returncode == 0, ended.stderr
    steps = after_evaluation(checkout)
    assert steps["Check"].returncode == 1, steps["Check"].stderr
    assert "robust: " in steps["Check"].stdout.splitlines()[-1]
    summary = (checkout / "summary.md").read_text()
    assert summary.index("no regression") < summary.index("**regressed**")


def place(checkout, name):
    for suffix in (".safetensors", ".json"):
        shutil.copy(WEIGHTS / f"{name}{suffix}", checkout / f"model{suffix}")

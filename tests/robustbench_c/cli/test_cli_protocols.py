"""Named protocols: they fix every setting, and say so when an option contradicts."""

from __future__ import annotations

import sys

import pytest

from leaderboards.store import RunStore
from robustbench_c.cli.evaluate import main
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.protocols import known_protocols, load_protocol

TINY = """
name = "tiny-v1"
description = "For a test."
data = "breast-cancer"
norm = "l2"
eps = 0.5
steps = 3
restarts = 1
step_size = 0.25
loss = "margin"
goal = "untargeted"
"""


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["robust-eval", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", known_protocols())
def test_shipped_protocols_are_named_as_their_files(name):
    assert load_protocol(name).name == name


def test_a_protocol_fixes_the_run(monkeypatch, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    arguments = ("--protocol", str(tmp_path / "tiny.toml"), "--model", "breast-cancer-mlp")
    assert run(monkeypatch, *arguments, "--out", str(tmp_path / "runs")) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    protocol = RunStore.open(folder).manifest.protocol
    assert (protocol.name, protocol.threat.norm, protocol.threat.eps) == ("tiny-v1", "l2", 0.5)
    assert protocol.steps[0].parameters == {
        "steps": 3,
        "restarts": 1,
        "step_size": 0.25,
        "loss": "margin",
        "goal": "untargeted",
        "random_start": True,
    }


@pytest.mark.parametrize("option", [("--eps", "0.2"), ("--steps", "40"), ("--data", "digits")])
def test_an_option_beside_it_is_refused(monkeypatch, capsys, option):
    assert run(monkeypatch, "--model", "x", "--protocol", "fmnist-linf-0.1-v1", *option) == 2
    assert f"fixes {option[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [("eps = ", "is not TOML"), ("eps = -1", "is not a protocol"), (None, "cannot read")],
)
def test_a_bad_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        load_protocol(str(path))


def test_a_misspelt_name_gets_a_hint():
    with pytest.raises(UsageError, match=r"did you mean 'fmnist-linf-0\.1-v1'"):
        load_protocol("fmnist-linf-0.1-v2")

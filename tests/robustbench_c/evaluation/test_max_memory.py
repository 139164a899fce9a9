from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attacks import memory
from attacks.errors import TooLittleMemoryError
from attacks.explanation_config import ExplanationAttackConfig
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from certify.methods import Budget
from leaderboards.worklog import read_logs
from robustbench_c.errors import UsageError
from robustbench_c.evaluation import ExplainConfig, evaluate_explanations, rooms
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.memory import parse_size

CPU = torch.device("cpu")
PGD = PGDConfig(steps=3, restarts=2, loss="margin")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2G", 2 * 10**9),
        ("2GB", 2 * 10**9),
        ("1.5GiB", 3 << 29),
        ("800m", 800 * 10**6),
        ("64 KiB", 1 << 16),
        ("1T", 10**12),
        ("123456", 123456),
        ("12B", 12),
    ],
)
def test_amounts_of_memory(text, size):
    assert parse_size(text, "--max-memory") == size


@pytest.mark.parametrize(
    "text",
    ["", "G", "2X", "-2G", "0", "0.5", "2 G G", "1e9", "nan", "2iB", "9999999T", "2G\n3", "٢G"],
)
def test_nonsense_is_one_line(text):
    with pytest.raises(UsageError, match="no amount of memory such as 2G") as error:
        parse_size(text, "--max-memory")
    assert "--max-memory" in str(error.value)


def test_chunks_are_as_large_as_there_is_room(monkeypatch):
    monkeypatch.setattr(memory, "in_use", lambda device: 400 << 20)

    def share(room: int, numbers: int = 1000) -> float:
        return rooms.share_for(room << 20, numbers, CPU)

    assert rooms.share_for(None, 10**9, CPU) == 1.0
    assert share(4000) == share(1150) == 1.0
    assert [share(room) for room in (830, 670, 580)] == [1 / 2, 1 / 4, 1 / 8]
    assert share(1150, 10**6) == 1 / 2  # more is known of larger models
    with pytest.raises(TooLittleMemoryError, match=r"one sample in bounds: it takes 649 MiB"):
        share(600, 10**6)
    assert rooms.share_for(500 << 20, 1000, torch.device("cuda")) == 1 / 8  # draws elsewhere


def test_results_do_not_depend_on_a_bound_that_is_kept(linear, hashes, tmp_path):
    proof = CertifyConfig("alpha-crown", Budget(3))
    free = linear.evaluate(tmp_path / "free", attack=PGD, certify=proof)
    room = memory.in_use(CPU) + (900 << 20)
    tight = linear.evaluate(tmp_path / "tight", attack=PGD, certify=proof, max_memory=room)
    assert hashes(tight) == hashes(free)
    assert tight.store.manifest.run_id == free.store.manifest.run_id
    assert tight.verdicts.equals(free.verdicts)
    assert "for want of memory" not in str(tight.store.manifest.notices)


def test_smaller_chunks_are_said_and_prove_the_same(linear, tmp_path, monkeypatch):
    proof = CertifyConfig("crown", Budget(3, 20))
    free = linear.evaluate(tmp_path / "free", attack="none", certify=proof)
    monkeypatch.setattr(rooms, "share_for", lambda *_: 1 / 64)
    tight = linear.evaluate(tmp_path / "tight", attack="none", certify=proof)
    assert tight.verdicts.equals(free.verdicts)
    (line,) = [n for n in tight.store.manifest.notices if "for want of memory" in n]
    assert "1/64 of the usual size" in line
    assert tight.store.manifest.identity() == free.store.manifest.identity()
    # whoever goes on with a run, and wherever memory runs out, the rows say it
    for path in (free.folder / "shards" / "crown").iterdir():
        path.unlink()
    resumed = linear.evaluate(tmp_path / "free", attack="none", certify=proof)
    assert not any("for want of memory" in n for n in resumed.store.manifest.notices)
    (notice,) = resumed.summary.notices
    assert f"of {resumed.summary.steps[1].samples} rows of crown were made in smaller" in notice
    assert (free.summary.notices, resumed.summary.steps[0].narrow) == ((), 0)
    assert resumed.store.verify_bytes() == []


@pytest.mark.parametrize("of", ["attack", "proof", "explanation"])
def test_a_bound_below_what_a_sample_takes_is_refused_before_the_first(linear, tmp_path, of):
    def run() -> None:
        if of == "explanation":
            evaluate_explanations(
                linear.model, linear.x, linear.y, linear.threat(), out=tmp_path, max_memory=1 << 20
            )
        options = {"attack": "none", "certify": CertifyConfig("ibp")} if of == "proof" else {}
        linear.evaluate(tmp_path, max_memory=1 << 20, **options)

    with pytest.raises(TooLittleMemoryError, match=r"too little memory for .* takes \d+ MiB") as e:
        run()
    assert e.value.exit_code == 2
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="at least 1"):
        linear.evaluate(tmp_path, max_memory=0)


class Tight(torch.nn.Module):
    """Raises as CUDA does when a batch is too large."""

    def __init__(self, inner: torch.nn.Module, room: int) -> None:
        super().__init__()
        self.inner, self.room = inner, room

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def test_memory_that_runs_out_is_in_the_log_and_changes_nothing(linear, hashes, tmp_path):
    free = linear.evaluate(tmp_path / "free", attack=PGD)
    model, told = Tight(linear.model, 10**6).eval(), list[str]()

    def shrink(*_) -> None:
        model.room = 32

    with memory.telling(told.append):
        run = linear.with_model(model).evaluate(tmp_path / "tight", attack=PGD, progress=shrink)
    assert hashes(run) == hashes(free)
    assert run.summary.notices == ()  # 32 is a tile: the same bits
    assert told == ["out of memory in a pass over 64 samples: going on with 32"]
    (log,) = read_logs(run.folder).workers
    assert [line.text for line in log.lines if line.event == "notice"] == told


def test_explanations_go_on_as_well(linear, tmp_path):
    config = ExplainConfig(attack=ExplanationAttackConfig(steps=2), methods=("interval",))

    def run(out: str, model: torch.nn.Module, **options):
        threat = ThreatModel.box("linf", 0.02)
        return evaluate_explanations(
            model, linear.x, linear.y, threat, config=config, out=tmp_path / out, **options
        )

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Softplus(), torch.nn.Linear(8, 3))
    free, model, told = run("free", net.eval()), Tight(net, 10**6).eval(), list[str]()

    def shrink(*_) -> None:
        model.room = 9

    with memory.telling(told.append):
        tight = run("tight", model, progress=shrink)
    assert tight.verdicts.equals(free.verdicts)
    assert any("an attack on explanations" in line for line in told)
    assert (free.summary.notices, tight.summary.steps[0].narrow) == ((), 0)
    assert any("rows of explain-attack were made in smaller" in n for n in tight.summary.notices)


def took(what: str, out: Path, max_memory: int = 0) -> dict:
    words = [sys.executable, str(Path(__file__).with_name("memory_runs.py"))]
    words += [what, str(out), str(max_memory)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "above"), [("attack", 220), ("crown", 260), ("alpha-crown", 260), ("complete", 280)]
)
def test_the_peak_stays_below_the_bound(what, above, tmp_path):
    free = took(what, tmp_path / "free")
    bound = free["start"] + (above << 20)
    assert free["peak"] > bound
    tight = took(what, tmp_path / "tight", bound)
    assert tight["peak"] < bound
    assert tight["verdicts"] == free["verdicts"]
    assert tight["run"] == free["run"]
    if not any("for want of memory" in notice for notice in tight["notices"]):
        assert tight["hashes"] == free["hashes"]

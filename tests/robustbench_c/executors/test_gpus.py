"""A GPU for each worker on a machine that has several."""

from __future__ import annotations

import os

import pytest

from robustbench_c.executors.gpus import VISIBLE, environment_of, visible_gpus
from robustbench_c.executors.local import beside
from robustbench_c.executors.protocol import Work


@pytest.fixture
def machine(tmp_path):
    """A file system of a machine with `known` GPUs, of which a container has `files`."""

    def make(known: int, files: int | None = None):
        for i in range(known):
            (tmp_path / f"proc/driver/nvidia/gpus/0000:0{i}:00.0").mkdir(parents=True)
        (tmp_path / "dev").mkdir()
        for name in ("nvidiactl", "nvidia-uvm", "null"):
            (tmp_path / "dev" / name).touch()
        for i in range(known if files is None else files):
            (tmp_path / f"dev/nvidia{i}").touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("told", "gpus"),
    [
        ("0,1,2", ["0", "1", "2"]),
        (" 3 , 1 ", ["3", "1"]),
        ("GPU-8a,MIG-1b", ["GPU-8a", "MIG-1b"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("1,,2", ["1"]),
    ],
)
def test_what_the_variable_says(told, gpus, machine):
    assert visible_gpus({VISIBLE: told}, machine(4)) == gpus


def test_gpus_are_counted_without_it(machine, tmp_path):
    assert visible_gpus({}, tmp_path / "none") == []
    assert visible_gpus({}, machine(4, 2)) == ["0", "1"]


def test_workers_take_turns(machine):
    root = machine(2)
    given = [environment_of(i, (), {}, root) for i in (1, 2, 3)]
    assert given == [{VISIBLE: "0"}, {VISIBLE: "1"}, {VISIBLE: "0"}]
    shares = [environment_of(i, ("--device=cuda",), {VISIBLE: "7,GPU-5"}, root) for i in (1, 2)]
    assert shares == [{VISIBLE: "7"}, {VISIBLE: "GPU-5"}]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("--device", "cpu"), {}),
        (("--device=cpu",), {}),
        (("--device", "cuda", "--device", "cuda:1"), {}),
        ((), {VISIBLE: "1"}),
        ((), {VISIBLE: ""}),
    ],
)
def test_what_is_left_alone(arguments, environment, machine):
    assert environment_of(2, arguments, environment, machine(4)) == {}


def test_each_process_sees_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv(VISIBLE, "4,5,6")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = "import os, sys; print(os.environ['{}'], sys.argv[-1], file=sys.stderr)"

    class Told(Work):
        def words(self, worker, workers):
            return ["python3", "-c", told.format(VISIBLE), f"{worker}/{workers}"]

    ended = []
    with beside(Told("robust-eval", ()), 3, ended, print):
        assert os.environ[VISIBLE] == "4"
    assert [each.message for each in ended] == ["5 2/3", "6 3/3"]

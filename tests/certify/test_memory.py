"""Chunks of any size, parts in a file, and memory that runs out: the same verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from torch import nn

from attacks import memory
from attacks.errors import TooLittleMemoryError
from attacks.threat import ThreatModel
from certify import branch, crown, methods, search, shelf
from certify.methods import METHODS, Budget, Certifier
from certify.result import Certificates

CPU, THREAT = torch.device("cpu"), ThreatModel.box("linf", 0.08)
HARD = [28, 6, 8, 0, 1]  # takes of them dozens of parts
SUBPROBLEMS = 30


def network() -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(4)
    layers = [nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)).eval()
    with torch.no_grad():
        net[-1].bias -= net(torch.rand(200, 10)).mean(0)
    torch.manual_seed(5)
    return net, torch.rand(60, 10)[HARD]


@pytest.fixture(scope="module")
def dense() -> Certifier:
    return Certifier(network()[0], torch.rand(2, 10))


@pytest.fixture(scope="module")
def whole(dense) -> Callable[[str], Certificates]:
    """What is proved with all the memory that it takes, by method."""
    return cache(lambda method: bounded(dense, method))


def bounded(prover: Certifier, method: str) -> Certificates:
    net, x = network()
    y, ids = net(x).argmax(1), torch.arange(len(x))
    return prover.certify(method, x, y, ids, THREAT, Budget(3, SUBPROBLEMS))


def same(one: Certificates, other: Certificates) -> None:
    assert one.outcome == other.outcome
    assert one.method == other.method
    assert one.detail == other.detail
    assert torch.equal(one.work, other.work)
    assert torch.allclose(one.lower, other.lower, rtol=1e-5, atol=1e-5)


@contextmanager
def room_for(count: int, monkeypatch, where, name: str, size) -> Iterator[None]:
    """Memory runs out when a function is called with more than `count` of something."""
    whole = getattr(where, name)

    def tight(*args, **kwargs):
        if size(*args, **kwargs) > count:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, tight)
        yield


@pytest.mark.parametrize("method", METHODS)
def test_bounds_go_on_with_fewer_samples_when_memory_runs_out(dense, whole, method, monkeypatch):
    told: list[str] = []
    expected = whole(method)
    where = branch if method == "complete" else methods
    out = room_for(2, monkeypatch, where, "analyse", lambda program, inputs, **_: len(inputs))
    with memory.telling(told.append), memory.within(1.0), out:
        same(bounded(dense, method), expected)
        assert memory.is_narrow()
    assert told
    assert told[0].startswith("out of memory in ")
    assert "error" not in expected.outcome


def test_branch_and_bound_goes_on_with_fewer_parts(dense, whole, monkeypatch):
    assert int(whole("complete").work.max()) > 20
    told: list[str] = []
    out = room_for(7, monkeypatch, branch, "ascend", lambda part, *_, **__: len(part))
    with memory.telling(told.append), out:
        same(bounded(dense, "complete"), whole("complete"))
    assert "out of memory in branch and bound" in told[-1]


@pytest.mark.slow
def test_the_model_may_run_out_of_memory_inside_of_branch_and_bound(whole, monkeypatch):
    net, _ = network()
    expected, told = whole("complete"), list[str]()

    def tight(module, inputs):
        if len(inputs[0]) > 6 and torch.is_grad_enabled():
            raise MemoryError

    prover = Certifier(net, torch.rand(2, 10))
    with net[0].register_forward_pre_hook(tight), memory.telling(told.append):
        same(bounded(prover, "complete"), expected)
    assert told


def test_what_does_not_fit_at_all_is_one_line(dense, monkeypatch):
    out = room_for(0, monkeypatch, crown, "bound", lambda program, node, values, r, n: n)
    with out, pytest.raises(TooLittleMemoryError, match="for one sample in bounds by crown"):
        bounded(dense, "crown")


@pytest.mark.parametrize(
    ("method", "share"),
    [
        pytest.param("complete", 1 / 16, marks=pytest.mark.slow),
        *((m, 1 / 4096) for m in METHODS[:-1]),
    ],
)
def test_smaller_chunks_prove_the_same(dense, whole, method, share):
    expected = whole(method)
    with memory.within(share):
        same(bounded(dense, method), expected)


@pytest.mark.parametrize("most", [pytest.param(0, marks=pytest.mark.slow), 700])
def test_open_parts_come_back_from_a_file_bit_for_bit(dense, whole, most, monkeypatch):
    stored: list[bool] = []
    put = shelf.Shelf.put

    def noted(self, tensors):
        kept = put(self, tensors)
        stored.append(isinstance(kept, shelf.Slot))
        return kept

    monkeypatch.setattr(shelf.Shelf, "put", noted)
    monkeypatch.setattr(shelf, "_BYTES", most)
    found = bounded(dense, "complete")
    same(found, whole("complete"))
    assert torch.equal(found.lower, whole("complete").lower)
    assert any(stored)
    assert all(stored) == (most == 0)


def test_a_shelf_holds_no_more_than_it_may_and_uses_its_file_again(monkeypatch):
    monkeypatch.setattr(shelf, "_BYTES", 100)
    kept = shelf.Shelf()
    things = [
        (torch.full((7,), i, dtype=torch.int8), torch.rand(1, 7), torch.rand(1).double())
        for i in range(8)
    ]
    places = [kept.put(thing) for thing in things]
    assert kept.held == 2 * 43
    for _ in range(3):
        for thing, place in zip(things, places, strict=True):
            for a, b in zip(kept.take(place), thing, strict=True):
                assert torch.equal(a, b)
                assert a.dtype == b.dtype
        places = [kept.put(thing) for thing in things]
    assert kept._end == 6 * 43
    for place in places:
        kept.drop(place)
    assert kept.held == 0


def test_a_search_that_ends_leaves_its_shelf_empty(dense):
    state = search.Search(0, search.Budget(1))
    point = search.Point(*(torch.rand(1, 3) for _ in range(3)), torch.tensor([-1.0]))
    for clause in range(3):
        part = search.Subproblem(0, clause, torch.zeros(3, dtype=torch.int8), point, -1.0 - clause)
        state.push(part)
    assert state.shelf.held > 0
    (lowest,) = state.take(1)
    assert lowest.clause == 2
    assert lowest.lower == -3.0
    state.end(search.Outcome.TIMEOUT)
    assert state.shelf.held == 0
    assert state.lower == -3.0

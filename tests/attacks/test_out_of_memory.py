from __future__ import annotations

import pytest
import torch
from torch import nn

from attacks import memory
from attacks.classifier import TiledClassifier, prepare
from attacks.errors import TooLittleMemoryError
from attacks.pgd import PGDConfig, pgd
from attacks.threat import ThreatModel

CPU = torch.device("cpu")
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
]


class Small(nn.Module):
    """Has room for so many samples; a plain linear model."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))
        self.room, self.error = room, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise self.error
        return self.layer(x)


def attacked(model: Small, **changes):
    torch.manual_seed(1)
    x = torch.rand(50, 12)
    y = model.layer(x).argmax(1)
    classifier = prepare(model.eval(), x)
    for name, value in changes.items():
        setattr(model, name, value)
    config, threat = PGDConfig(steps=5, restarts=2, loss="margin"), ThreatModel.box("linf", 0.08)
    return pgd(classifier, x, y, torch.arange(50), threat, config, 0), classifier


@pytest.mark.parametrize(
    ("room", "error"), [(63, ERRORS[0]), (33, ERRORS[1]), (32, ERRORS[2]), (20, ERRORS[0])]
)
def test_an_attack_goes_on_in_smaller_batches_and_finds_the_same(room, error):
    whole, _ = attacked(Small(1000, error))
    told: list[str] = []
    with memory.telling(told.append):
        found, classifier = attacked(Small(1000, error), room=room)
    assert 0 < int(whole.found.sum()) < 50
    for name in ("found", "adversarial", "iteration", "restart", "forwards", "backwards"):
        assert torch.allclose(getattr(found, name).float(), getattr(whole, name).float()), name
    if room >= 32:  # a tile that was measured
        assert torch.equal(found.adversarial, whole.adversarial)
        assert torch.equal(found.lowest, whole.lowest)
    assert classifier.most is not None
    assert classifier.most <= room
    assert told
    assert all("out of memory in a pass over" in line for line in told)
    assert ("last bits" in told[-1]) == (room < 32)


@pytest.mark.parametrize("error", ERRORS[:1])
def test_what_has_no_room_for_one_sample_is_one_line(error):
    with pytest.raises(TooLittleMemoryError, match="one sample in a pass"):
        attacked(Small(1000, error), room=0)


def test_a_tile_that_does_not_fit_is_not_chosen():
    error = ERRORS[0]
    _, classifier = attacked(Small(40, error))
    assert max(classifier.tiles) == 32
    assert classifier.most == 32


def test_other_errors_are_not_taken_for_it():
    assert not memory.exhausted(RuntimeError("shape '[2]' is invalid for input of size 3"))
    assert not memory.exhausted(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="something else"):
        attacked(Small(1000, RuntimeError("something else")), room=7)


def test_passes_are_as_large_as_a_bound_on_memory_lets_them():
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(1, 64, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 784, 3))
    x = torch.rand(80, 1, 28, 28)
    before = memory.in_use(CPU)
    tight = prepare(wide.eval(), x, max_memory=before + (130 << 20))
    assert tight.most is not None
    assert tight.most < 256
    with pytest.raises(TooLittleMemoryError, match=r"it takes \d+ MiB"):
        prepare(wide, x, max_memory=before // 2)


def test_chunks_shrink_by_a_share_and_stay_so():
    assert memory.room(1000) == 1000
    tried: list[int] = []

    def work() -> int:
        tried.append(memory.room(1000))
        if tried[-1] > 130:
            raise MemoryError
        return tried[-1]

    told: list[str] = []
    with memory.within(0.5), memory.telling(told.append):
        assert memory.halving(work, "bounds", CPU) == 125
        assert memory.room(1000) == 125
        assert memory.is_narrow()
    assert tried == [500, 250, 125]
    assert told[-1] == "out of memory in bounds: going on in chunks of 1/8 of the usual"
    assert not memory.is_narrow()
    with pytest.raises(TooLittleMemoryError, match="one sample in bounds"):
        memory.halving(lambda: exec("raise MemoryError"), "bounds", CPU)
    with pytest.raises(KeyError):
        memory.halving(lambda: {}["x"], "bounds", CPU)


def test_the_clean_pass_is_evaluated_in_parts():
    classifier = TiledClassifier(Small(5, ERRORS[1]).eval())
    assert classifier.logits(torch.rand(50, 12)).shape == (50, 3)
    assert classifier.most == 4

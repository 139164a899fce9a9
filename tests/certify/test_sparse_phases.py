"""AC/DC's phases and rewinding's rounds, step by step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from certify.sparse import Alternating, Rewind
from certify.sparse.schedule import geometric_sparsity
from tests.certify.sparse_nets import Blobs, draws, steps, tiny, zeros

DATA = Blobs()
TOTAL = 36 + 384 + 12


def make(kind, **settings):
    model = tiny()
    return kind(model, kind.settings_type(sparsity=0.9, **settings), draws)


def loss_of(model: nn.Module):
    return lambda: F.cross_entropy(model(DATA.x), DATA.y)


def test_acdc_takes_the_phases_of_the_paper():
    method = make(Alternating)
    epochs = [e for e in range(200) if method.compressed(e, 200)]
    spans = [(10, 30), (50, 70), (90, 110), (130, 150), (170, 200)]
    assert epochs == [e for begin, end in spans for e in range(begin, end)]


def test_acdc_keeps_its_mask_in_a_phase_and_regrows_from_zero():
    method = make(Alternating, dense_until=0.1, phase=0.2, compressed_from=0.9)
    optimiser = torch.optim.SGD(method.model.parameters(), lr=0.1, momentum=0.9)
    kept = round(0.1 * TOTAL)
    masks, counts = [], []
    for step in steps(method, loss_of(method.model), 20, optimiser=optimiser):
        masks.append(method.masks)
        counts.append(zeros(method.model))
        if step in (2, 6, 10, 14, 18):
            buffers = [s["momentum_buffer"] for s in optimiser.state.values()]
            assert all(not bool(buffer.any()) for buffer in buffers)
    # A dense phase begins (6, 14) with the pruned weights at zero.
    full = [step for step in range(20) if counts[step] == TOTAL - kept]
    assert full == [2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 18, 19]
    assert counts[7] < TOTAL - kept
    assert masks[2] is masks[5]
    assert [u.sparsity > 0 for u in method.history] == [True, False, True, False, True]


def test_acdc_measures_a_pruned_copy_in_a_dense_phase_and_leaves_the_model_dense():
    method = make(Alternating, dense_until=0.5, phase=0.1, compressed_from=0.9)
    measured = method.settle(method.model, DATA.x)
    assert zeros(measured) == TOTAL - round(0.1 * TOTAL)
    assert zeros(method.model) == 0


def test_rewinding_gives_exactly_the_saved_weights():
    method = make(Rewind, rewind_epochs=0.4)
    saved: dict[str, torch.Tensor] = {}
    expected = [geometric_sparsity(0.9, i / 2) for i in (1, 2)]
    before = method.masks
    for step in steps(method, loss_of(method.model), 30, cycles=3):
        if step == 2:
            saved = {n: v.clone() for n, v in method.model.state_dict().items()}
        if step in (10, 20):
            for name, value in method.model.state_dict().items():
                kept = method.masks.full_masks.get(name)
                want = saved[name] if kept is None else saved[name] * kept
                assert torch.equal(value, want), name
            kept = round((1 - expected[step // 10 - 1]) * TOTAL)
            assert zeros(method.model) == TOTAL - kept
            assert before.changes(method.masks)[1] == 0  # nothing comes back
            before = method.masks
    assert zeros(method.model) == TOTAL - round(0.1 * TOTAL)


def test_rewinding_prunes_the_smallest_of_what_is_kept():
    method = make(Rewind, rewind_epochs=0, allocation="global")
    trained = []
    sizes = method.magnitudes
    method.magnitudes = lambda: trained.append(sizes()) or trained[-1]
    for _ in steps(method, loss_of(method.model), 15, cycles=3):
        pass
    first, second = (torch.cat(list(each.values())) for each in trained)
    count = round((1 - geometric_sparsity(0.9, 0.5)) * TOTAL)
    alive = torch.zeros(TOTAL, dtype=torch.bool)
    alive[first.argsort(descending=True)[:count]] = True
    assert bool((second[~alive] == 0).all())
    alive = torch.zeros(TOTAL, dtype=torch.bool)
    alive[second.argsort(descending=True)[: round(0.1 * TOTAL)]] = True
    assert torch.equal(torch.cat(list(method.masks.units.values())), alive)


@pytest.mark.parametrize(("done", "sparsity"), [(0.0, 0.0), (0.5, 0.9), (1.0, 0.99)])
def test_rounds_keep_equal_shares(done, sparsity):
    assert geometric_sparsity(0.99, done) == pytest.approx(sparsity)

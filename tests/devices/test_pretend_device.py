"""The pretended device refuses what CUDA refuses, and nothing else."""

from __future__ import annotations

import pytest
import torch
from pretend_device import DeviceError, pretend_cuda
from torch import nn


@pytest.fixture(autouse=True)
def cuda():
    with pretend_cuda() as mode:
        yield mode


def test_what_lies_where():
    x = torch.ones(3, 2).to("cuda")
    assert (x.device.type, x.is_cuda, x.is_cpu) == ("cuda", True, False)
    assert (x.cpu().device.type, torch.ones(2).device.type) == ("cpu", "cpu")
    made = (x[0], x + 1, x.double(), torch.zeros_like(x), x.new_zeros(2), x.sum(), x.to(x), 2 * x)
    assert all(each.is_cuda for each in made)
    assert torch.arange(3, device=x.device).is_cuda
    assert torch.tensor([1.0], device="cuda").to("cpu").is_cpu
    assert x.cpu().numpy().tolist() == x.tolist()
    x += 1
    assert x.is_cuda
    assert float(x.sum()) == 12


def test_a_module_moves_and_its_gradients_with_it():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).to("cuda")
    x = torch.rand(4, 2, device="cuda", requires_grad=True)
    loss = nn.functional.cross_entropy(net(x), torch.zeros(4, dtype=torch.int64, device="cuda"))
    loss.backward()
    assert all(p.is_cuda and p.grad.is_cuda for p in net.parameters())
    assert x.grad.is_cuda
    torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).step()
    assert next(net.to("cpu").parameters()).is_cpu


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.ones(2),
        lambda x: torch.cat([x, torch.ones(2)]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: torch.ones(2)[x.long()],
        lambda x: torch.ones(2).mul_(x),
        lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1)),
        lambda x: x.numpy(),
        lambda x: nn.Linear(2, 2)(x),
        lambda x: torch.where(x > 0, torch.ones(2), x),
        lambda x: x.gather(0, torch.tensor([0])),
        lambda x: torch.rand(2, device=x.device, generator=torch.Generator()),
        lambda x: x.uniform_(generator=torch.Generator()),
        lambda x: torch.rand(2, generator=torch.Generator("cuda")),
        lambda x: x.long() @ x.long(),
        lambda x: x.pin_memory(),
        lambda x: torch.equal(x, torch.ones(2)),
        lambda x: torch.ones(2) * x.sum(),
    ],
)
def test_what_cuda_refuses(mixed):
    with pytest.raises(DeviceError):
        mixed(torch.ones(2, device="cuda"))


def test_what_it_allows(cuda):
    x = torch.arange(4.0).to("cuda")
    scalar = torch.tensor(2.0)
    found = [x * scalar, scalar * x, torch.where(x > 1, scalar, x), x[torch.tensor([1, 2])]]
    x[torch.tensor([True, False, False, True])] = 5.0
    x[0] = scalar
    x.copy_(torch.ones(4))
    found += [x.uniform_(generator=torch.Generator("cuda")), torch.ones(4).pin_memory().to("cuda")]
    assert all(each.is_cuda for each in found)
    assert cuda.pinned == 1

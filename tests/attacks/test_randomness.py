"""Random numbers belong to (seed, method, sample, restart) and to nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy import stats

from attacks.randomness import gaussian, stream_keys, uniform

N = 40_000


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator (java.util.SplittableRandom, xoshiro's splitmix64.c), in Python."""
    mask, state, found = (1 << 64) - 1, seed & ((1 << 64) - 1), []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        found.append(z ^ (z >> 31))
    return found


def test_known_answers():
    assert splitmix64(0, 1) == [0xE220A8397B1DCDAF]  # the value published for seed 0
    for key in (0, 1, -5, 2**62 + 12345):
        words = splitmix64(key, 6)
        found = uniform(torch.tensor([key]), 6)[0]
        assert found.tolist() == [(word >> 40) / 2**24 for word in words]
        parts = [sum((word >> shift) & 0xFFFF for shift in (0, 16, 32, 48)) for word in words]
        sums = [(sum(parts[i : i + 3]) - 6 * 0xFFFF) / 2**16 for i in (0, 3)]
        assert gaussian(torch.tensor([key]), 2)[0].tolist() == sums


def test_keys_are_pinned():
    """A change of these changes every recorded verdict that hangs on noise."""
    assert stream_keys(7, "pgd", [0, 1, 123456], 2).tolist() == [
        -6633337421894870286,
        -7090025516224301055,
        2836087830294334827,
    ]


def test_streams_differ_in_every_part_of_the_key():
    keys = [
        int(stream_keys(seed, method, [sample], restart))
        for seed, method, sample, restart in itertools.product(
            (0, 1, 11), ("pgd", "apgd"), (0, 1, 11, 111), (0, 1, 11)
        )
    ]
    assert len(set(keys)) == len(keys)
    draws = uniform(torch.tensor(keys), 50)
    correlation = np.corrcoef(draws.numpy())
    assert np.abs(correlation - np.eye(len(keys))).max() < 0.65  # 2,556 pairs of 50 numbers


def test_neither_order_nor_company_matter():
    ids = list(range(100, 200))
    keys = stream_keys(3, "pgd", ids, 0)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stream_keys(3, "pgd", [ids[i] for i in order], 0), keys[order])
    for draw in (uniform, gaussian):
        whole = draw(keys, 7)
        assert torch.equal(draw(keys[order], 7), whole[order])
        assert torch.equal(draw(keys[5:6], 7), whole[5:6])


def test_offsets_go_on_in_the_stream():
    keys = stream_keys(3, "pgd", range(5), 0)
    assert torch.equal(uniform(keys, 10)[:, 4:], uniform(keys, 6, offset=4))
    assert torch.equal(gaussian(keys, 10)[:, 4:], gaussian(keys, 6, offset=12))


def test_uniform_numbers_are_uniform():
    for draws in (
        uniform(stream_keys(0, "pgd", range(N), 0), 1).flatten(),  # over samples
        uniform(stream_keys(0, "pgd", [0], 0), N).flatten(),  # along one stream
    ):
        assert float(draws.min()) >= 0
        assert float(draws.max()) < 1
        assert stats.kstest(draws.numpy(), "uniform").pvalue > 1e-3
        counts = np.bincount((draws * 64).long().numpy(), minlength=64)
        assert stats.chisquare(counts).pvalue > 1e-3
        pairs = np.histogram2d(draws[::2].numpy(), draws[1::2].numpy(), bins=16)[0]
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_gaussian_numbers_have_the_moments_and_the_shape():
    draws = gaussian(stream_keys(0, "pgd", range(N // 10), 0), 10).double().flatten().numpy()
    assert abs(draws.mean()) < 4 / np.sqrt(N)
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / N)
    assert abs(stats.skew(draws)) < 0.05
    assert abs(stats.kurtosis(draws) + 0.1) < 0.1  # -0.1 is that of twelve uniforms
    assert stats.kstest(draws, "norm").statistic < 0.01

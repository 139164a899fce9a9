"""Random numbers belong to (seed, method, sample, restart) and to nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from attacks.randomness import advance, gaussian, normal, stream_keys, uniform

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
    for draw in (uniform, gaussian, normal):
        whole = draw(keys, 7)
        assert torch.equal(draw(keys[order], 7), whole[order])
        assert torch.equal(draw(keys[5:6], 7), whole[5:6])


def test_offsets_go_on_in_the_stream():
    keys = stream_keys(3, "pgd", range(5), 0)
    assert torch.equal(uniform(keys, 10)[:, 4:], uniform(keys, 6, offset=4))
    assert torch.equal(gaussian(keys, 10)[:, 4:], gaussian(keys, 6, offset=12))
    passed = torch.tensor([0, 1, 4, 4, 2**40])
    further = torch.stack([normal(keys, 6, offset=int(p))[i] for i, p in enumerate(passed)])
    assert torch.equal(normal(advance(keys, passed), 6), further)


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


def is_normal(draws: np.ndarray) -> bool:
    """Judged by shape, moments and tails; 400,000 numbers tell it from a sum of uniforms."""
    counts = [(np.abs(draws) > far).sum() for far in (3, 4)]
    tails = [
        stats.binomtest(int(k), draws.size, 2 * stats.norm.sf(far)).pvalue
        for k, far in zip(counts, (3, 4), strict=True)
    ]
    kurtosis = stats.kurtosis(draws) / np.sqrt(24 / draws.size)
    skew = stats.skew(draws) / np.sqrt(6 / draws.size)
    return bool(
        stats.kstest(draws, "norm").pvalue > 1e-3
        and abs(kurtosis) < 4
        and abs(skew) < 4
        and min(tails) > 1e-3
    )


def test_normal_numbers_are_normal():
    for keys, count in ((range(10 * N), 1), (range(1), 10 * N), (range(N // 10), 100)):
        draws = normal(stream_keys(0, "smoothing", keys, 0), count)
        assert is_normal(draws.flatten().numpy())
        pairs = draws.flatten()[: 4 * N].view(-1, 2)
        assert abs(float(torch.corrcoef(pairs.T)[0, 1])) < 4 / np.sqrt(2 * N)


def test_sums_of_uniforms_are_not_normal_enough_for_a_certificate():
    draws = gaussian(stream_keys(0, "smoothing", range(N // 10), 0), 100)
    assert not is_normal(draws.flatten().double().numpy())


def test_normal_numbers_are_finite_and_symmetric_at_the_ends(monkeypatch):
    for bits, end in ((0, -8.2), (-1, 8.2)):  # all 64 bits of the stream are 0, or 1
        monkeypatch.setattr(
            "attacks.randomness._bits", lambda k, n, o, b=bits: torch.full((1, 1), b)
        )
        assert float(normal(torch.tensor([0]), 1)) == pytest.approx(end, abs=0.05)


def test_the_inverse_gives_the_same_bits_at_every_place_of_a_tensor():
    places = uniform(stream_keys(0, "smoothing", range(1), 0), 4096)[0].double() + 2.0**-30
    whole = torch.special.ndtri(places)
    for size in (1, 3, 7, 31):
        for start in range(0, 64):
            part = slice(start, start + size)
            assert torch.equal(torch.special.ndtri(places[part].clone()), whole[part])

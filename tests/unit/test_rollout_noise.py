"""The random numbers of rollouts: SplitMix64's published values, and independence of order."""

from __future__ import annotations

import torch

from derivatives.rollout.noise import stream_of, uniforms


def test_a_zero_stream_gives_the_published_splitmix64_sequence() -> None:
    drawn = uniforms(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2])).tolist()
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert drawn == [(value >> 11) / 2**53 for value in published]


def test_a_number_depends_on_its_stream_and_position_alone() -> None:
    streams = torch.tensor([stream_of(7, key, sample) for key in ("a", "b") for sample in (0, 1)])
    together = uniforms(streams, torch.tensor([0, 5, 9, 2]))
    alone = [float(uniforms(streams[i : i + 1], torch.tensor([p]))) for i, p in enumerate((0, 5, 9, 2))]
    assert together.tolist() == alone
    assert len(set(alone)) == 4


def test_streams_differ_by_seed_key_and_sample() -> None:
    names = {stream_of(seed, key, sample) for seed in (0, 1) for key in ("a", 1, "1/0") for sample in (0, 1)}
    assert len(names) == 2 * 3 * 2


def test_numbers_are_spread_evenly_over_the_unit_interval() -> None:
    drawn = uniforms(torch.full((100_000,), stream_of(0, "x", 0)), torch.arange(100_000))
    counts = torch.histc(drawn, bins=10, min=0, max=1)
    assert float(drawn.min()) >= 0 and float(drawn.max()) < 1
    # 10,000 expected in each; four standard deviations are 4 * sqrt(100,000 * 0.1 * 0.9) = 379.
    assert float((counts - 10_000).abs().max()) < 379

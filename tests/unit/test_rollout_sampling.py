"""Drawing tokens: hand-made distributions, read off at chosen points of the unit interval."""

from __future__ import annotations

import math

import pytest
import torch

from configs.settings.common import Sampling
from derivatives.rollout.sampling import next_tokens

LOGITS = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()


def draw(
    points: list[float], sampling: Sampling, logits: torch.Tensor = LOGITS, num_real: int | None = None
) -> tuple[list[int], list[float]]:
    rows, where = logits.repeat(len(points), 1), torch.tensor(points, dtype=torch.float64)
    tokens, log_probs = next_tokens(rows, where, sampling, num_real or rows.shape[1])
    return tokens.tolist(), log_probs.tolist()


def test_a_token_is_found_where_the_cumulative_probability_passes_the_number() -> None:
    tokens, log_probs = draw([0.0, 0.09, 0.11, 0.31, 0.59, 0.61, 0.999999], Sampling())
    assert tokens == [0, 0, 1, 2, 2, 3, 3]
    assert log_probs == pytest.approx([math.log(p) for p in (0.1, 0.1, 0.2, 0.3, 0.3, 0.4, 0.4)], abs=1e-6)


def test_temperature_reshapes_what_is_drawn_and_what_is_recorded() -> None:
    # At temperature 1/2 probabilities are squared: 1, 4, 9, 16 of 30.
    tokens, log_probs = draw([0.03, 0.04, 0.16, 0.17, 0.47], Sampling(temperature=0.5))
    assert tokens == [0, 1, 1, 2, 3]
    assert log_probs == pytest.approx([math.log(p / 30) for p in (1, 4, 4, 9, 16)], abs=1e-5)


def test_top_k_keeps_the_most_likely_and_renormalises() -> None:
    tokens, log_probs = draw([0.0, 0.42, 0.43, 0.99], Sampling(top_k=2))
    assert tokens == [2, 2, 3, 3]
    assert log_probs == pytest.approx([math.log(p) for p in (3 / 7, 3 / 7, 4 / 7, 4 / 7)], abs=1e-6)


def test_min_p_keeps_what_is_near_the_most_likely() -> None:
    # At least 0.6 of 0.4 are 0.3 and 0.4.
    tokens, log_probs = draw([0.0, 0.42, 0.43, 0.99], Sampling(min_p=0.6))
    assert tokens == [2, 2, 3, 3]
    assert log_probs == pytest.approx([math.log(p) for p in (3 / 7, 3 / 7, 4 / 7, 4 / 7)], abs=1e-6)
    tokens, _ = draw([0.0, 0.99], Sampling(min_p=1.0))
    assert tokens == [3, 3]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    tokens, _ = draw([0.0, 0.42, 0.43], Sampling(top_p=0.65))  # 0.4 falls short, 0.4 + 0.3 reaches it
    assert tokens == [2, 2, 3]
    tokens, log_probs = draw([0.0, 0.99], Sampling(top_p=0.01))
    assert tokens == [3, 3] and log_probs == [0.0, 0.0]


def test_padding_of_the_vocabulary_has_no_probability() -> None:
    logits = torch.tensor([0.0, 0.0, 50.0, 50.0])
    tokens, log_probs = draw([0.0, 0.49, 0.51, 0.9999999999], Sampling(), logits, num_real=2)
    assert tokens == [0, 0, 1, 1]
    assert log_probs == pytest.approx([math.log(0.5)] * 4)
    assert draw([0.5], Sampling(temperature=0.0), logits, num_real=2)[0] == [0]


def test_greedy_takes_the_largest_and_records_its_probability_at_temperature_one() -> None:
    tokens, log_probs = draw([0.0], Sampling(temperature=0.0))
    assert tokens == [3] and log_probs == pytest.approx([math.log(0.4)], abs=1e-6)


@pytest.mark.parametrize("size", [63, 64, 65, 130, 1000])
def test_the_search_in_blocks_finds_what_a_plain_search_finds(size: int) -> None:
    torch.manual_seed(size)
    logits = torch.randn(1, size) * 3
    points = torch.linspace(0, 0.99999, 501, dtype=torch.float64)
    tokens, _ = next_tokens(logits.repeat(501, 1), points, Sampling(), size)
    cumulative = logits.softmax(-1)[0].double().cumsum(0)
    plain = torch.searchsorted(cumulative, points * cumulative[-1], right=True)
    differing = (tokens != plain).sum()
    assert int(differing) <= 1  # a point may lie within rounding of a border


def test_tokens_without_probability_are_never_drawn() -> None:
    logits = torch.full((1, 200), float("-inf"))
    logits[0, [5, 64, 130]] = 0.0
    points = torch.linspace(0, 1, 400, dtype=torch.float64)[:-1]
    tokens, log_probs = next_tokens(logits.repeat(399, 1), points, Sampling(), 200)
    assert set(tokens.tolist()) == {5, 64, 130}
    assert bool(torch.isfinite(log_probs).all())

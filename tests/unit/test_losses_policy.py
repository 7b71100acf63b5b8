"""Policy losses and advantages, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from derivatives.losses import dapo, grpo
from derivatives.losses.advantages import group_advantages, has_spread
from derivatives.losses.clipping import Clip, clipped_loss

CLIP = Clip(0.2, 0.28)


def advantages(
    rewards: list[list[float]], known: list[list[bool]] | None = None, scale: bool = True
) -> list[list[float]]:
    rewards_PG = torch.tensor(rewards)
    known_PG = torch.ones_like(rewards_PG, dtype=torch.bool) if known is None else torch.tensor(known)
    return group_advantages(rewards_PG, known_PG, scale).tolist()


def test_advantages_are_distances_from_the_mean_in_standard_deviations() -> None:
    # Mean 1/4, variance 3/16, deviation sqrt(3)/4: (3/4) / (sqrt(3)/4) = sqrt(3), (-1/4) / (sqrt(3)/4) = -1/sqrt(3).
    assert advantages([[1.0, 0.0, 0.0, 0.0]])[0] == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3])


def test_without_scaling_they_are_distances_from_the_mean() -> None:
    assert advantages([[1.0, 0.0, 0.0, 0.0], [0.5, 1.0, 0.0, 0.5]], scale=False) == [
        [0.75, -0.25, -0.25, -0.25], [0.0, 0.5, -0.5, 0.0],
    ]  # fmt: skip


def test_a_completion_without_verdict_takes_no_part() -> None:
    # Known are 1, 0, 0: mean 1/3; the third's placeholder of 99 must not matter.
    found = advantages([[1.0, 0.0, 99.0, 0.0]], [[True, True, False, True]], scale=False)
    assert found[0] == pytest.approx([2 / 3, -1 / 3, 0.0, -1 / 3])


def test_groups_without_spread_or_with_one_verdict_or_none_get_zero() -> None:
    known = [[True, True], [True, False], [False, False], [True, True]]
    assert advantages([[0.1, 0.1], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], known) == [[0, 0], [0, 0], [0, 0], [1, -1]]
    rewards_PG = torch.tensor([[0.1, 0.1], [1.0, 0.0]])
    assert has_spread(rewards_PG, torch.ones(2, 2, dtype=torch.bool)).tolist() == [False, True]


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=16),
    st.booleans(),
)
def test_a_groups_advantages_sum_to_zero(group: list[tuple[float, bool]], scale: bool) -> None:
    (found,) = advantages([[reward for reward, _ in group]], [[known for _, known in group]], scale)
    assert abs(sum(found)) < 1e-6 * max(1.0, max(map(abs, found)))
    assert all(value == 0 for value, (_, known) in zip(found, group, strict=True) if not known)


def test_on_policy_the_loss_is_minus_the_advantage_and_its_gradient_reinforce() -> None:
    log_probs_T = torch.tensor([-1.0, -2.0], requires_grad=True)
    losses_T = clipped_loss(log_probs_T, log_probs_T.detach(), torch.tensor([0.5, -2.0]), CLIP)
    losses_T.sum().backward()
    assert losses_T.tolist() == [-0.5, 2.0]
    assert log_probs_T.grad is not None and log_probs_T.grad.tolist() == [-0.5, 2.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.2, 1.0, -1.2, -1.2),  # inside
        (1.5, 1.0, -1.28, 0.0),  # above the upper clip, and it would gain
        (1.5, -1.0, 1.5, 1.5),  # above, and it loses: not clipped
        (0.5, -1.0, 0.8, 0.0),  # below the lower clip, and it would gain
        (0.5, 1.0, -0.5, -0.5),  # below, and it loses: not clipped
    ],
)
def test_the_ratio_is_clipped_only_where_it_would_gain(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    log_probs_T = torch.tensor([math.log(ratio)], requires_grad=True)
    losses_T = clipped_loss(log_probs_T, torch.zeros(1), torch.tensor([advantage]), CLIP)
    losses_T.sum().backward()
    assert losses_T.item() == pytest.approx(loss)
    assert log_probs_T.grad is not None and log_probs_T.grad.item() == pytest.approx(gradient)


def test_grpo_averages_within_completions_first_and_dapo_over_all_tokens() -> None:
    # Two completions of 1 and 3 tokens with losses 4 and 1, 1, 1.
    lengths, losses = [1, 3], [[4.0], [1.0, 1.0, 1.0]]

    def total(loss: object) -> float:
        weighted = sum(value * loss.token_weight(len(row)) for row in losses for value in row)  # type: ignore[attr-defined]
        return weighted / loss.divisor(lengths)  # type: ignore[attr-defined]

    assert total(grpo) == pytest.approx((4 + 1) / 2)
    assert total(dapo) == pytest.approx((4 + 1 + 1 + 1) / 4)


def test_k3_is_zero_where_the_policies_agree_and_positive_elsewhere() -> None:
    found = grpo.k3_divergence(torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0, 0.0, -2.0]))
    # r - log r - 1 with log r = 0, 1, -1.
    assert found.tolist() == pytest.approx([0.0, math.e - 2, 1 / math.e], abs=1e-6)
